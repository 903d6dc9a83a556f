//! Makes the private key and the CSR of one pending custom CSR.

use std::{fmt::Display, future::Future, sync::Arc, time::Duration};

use futures::future::join_all;
use shared::{
    clock::Clock,
    custom_csr::{CustomCsr, KeyType},
    ids::CustomCsrId,
    metrics::{self, GenerationOutcome, KeySource},
    storage::{CompletionOutcome, GeneratedCsr, Generation, PoolKey, Store, StoreError},
    trace::{self, Span},
};
use tokio::time::Instant;

use crate::{
    key_pool::KeyPool,
    keys::{
        quality::Check,
        threads::{KeyThreads, ThreadError},
    },
    make::{KEYS_OF_ATTEMPT, MakeError, Maker},
    trouble::Troubles,
};

/// The most rows that one job makes keys for. A job costs the queue the same for one row or many. For RSA they are few, so that other
/// processes get their share.
const fn batch(key_type: KeyType) -> u32 {
    match key_type {
        KeyType::Rsa2048 => 4,
        KeyType::Rsa3072 | KeyType::Rsa4096 => 1,
        KeyType::P256v1 | KeyType::P384 | KeyType::Ed25519 | KeyType::MlDsa44 => 64,
    }
}

/// When a generation is given up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The pauses before the second attempt, the third and so on. There is one attempt more than there are pauses.
    pub retry_delays: Vec<Duration>,
    /// After so many starts without a result, the row is assumed to kill the process, and fails.
    pub starts: u32,
    /// The longest that one generation may take, without the time in which it waits for a processor.
    pub generation_time: Duration,
    /// How long store calls are repeated while the database is unavailable. Then the row is left to the sweep.
    pub database_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retry_delays: vec![Duration::from_secs(2), Duration::from_secs(8)],
            starts: 50,
            generation_time: Duration::from_mins(1),
            database_patience: Duration::from_secs(30),
        }
    }
}

impl Limits {
    fn attempts(&self) -> u32 {
        u32::try_from(self.retry_delays.len()).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// Why one attempt failed. Tenants read the message, so it holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// It panicked, or took too long.
    #[error("the key generation {0}")]
    Thread(#[from] ThreadError),
    /// It returned an error.
    #[error("{0}")]
    Make(#[from] MakeError),
}

/// Why a row has no result, through no fault of its own. No attempt is counted.
enum Deferral {
    Store(StoreError),
    /// The key generation has no thread.
    NoThread(AttemptError),
    /// The worker stops, or lacks the current master key: another one can make the key at once.
    LeftToOthers,
}

impl From<StoreError> for Deferral {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Runs generations.
pub struct Generator {
    /// Stores the rows.
    pub store: Arc<dyn Store>,
    /// Makes keys and CSRs.
    pub maker: Arc<Maker>,
    /// Run `maker` where it takes long.
    pub slow_threads: Arc<KeyThreads>,
    /// Run it where it does not, and go before the others.
    pub quick_threads: Arc<KeyThreads>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// RSA keys made ahead, or `None` if this process uses none.
    pub key_pool: Option<Arc<KeyPool>>,
    /// The errors that keep rows pending.
    pub troubles: Troubles,
    /// When to give up.
    pub limits: Limits,
}

impl Generator {
    /// Runs one job: its row, and other rows that wait for a key of the same type. It never fails: an error is written on the row, or the
    /// sweep finds the row again.
    pub async fn run(&self, id: CustomCsrId) {
        match self.patiently(|| self.start(id)).await {
            Ok(started) if started.is_empty() => tracing::debug!(custom_csr_id = %id, "nothing to do: deleted, or no longer pending"),
            // Each row is a future of its own, so that one that hangs or fails delays no other. The store commits their results together.
            Ok(started) => drop(join_all(started.into_iter().map(|generation| self.generate(generation))).await),
            // The job ends here, and the sweep finds the row.
            Err(error) => self.troubles.report(id, &error),
        }
    }

    /// Starts a row, and others beside it. If the answer is an error, but the start may have been counted, it is taken back; the sweep finds
    /// the others.
    async fn start(&self, id: CustomCsrId) -> Result<Vec<Generation>, StoreError> {
        let started = self.store.start_generations(id, batch).await;
        if let Err(StoreError::Ambiguous(_) | StoreError::Corrupt(_) | StoreError::Internal(_)) = &started {
            let _ = self.store.forget_start(id).await;
        }
        started
    }

    /// Takes the start of a row back, whatever the error was, and tries the row again after a pause, which grows with each error.
    async fn defer(&self, id: CustomCsrId, error: &impl Display) {
        self.troubles.report(id, error);
        let pause = self.troubles.pause(id);
        if self.store.defer_generation(id, pause).await.is_err() {
            // The sweep finds the row. If this fails too, one start of 50 too many is counted.
            let _ = self.store.forget_start(id).await;
        }
    }

    /// Leaves a row to another worker. If that fails, the sweep finds the row.
    pub async fn give_back(&self, id: CustomCsrId) {
        if let Err(error) = self.store.defer_generation(id, Duration::ZERO).await {
            tracing::warn!(custom_csr_id = %id, %error, "a custom CSR was not given back to the queue: it waits for the sweep");
        }
    }

    async fn generate(&self, generation: Generation) {
        let (id, scope, key_type) = (generation.custom_csr.id, &generation.custom_csr.scope, generation.custom_csr.request.key_type);
        let span = Span::generation(scope, key_type, generation.traceparent.as_deref());
        trace::within(span.as_ref(), self.generate_in_span(id, generation)).await;
    }

    async fn generate_in_span(&self, id: CustomCsrId, generation: Generation) {
        let done = self.generate_one(generation).await;
        if done.is_err() {
            trace::ended("deferred", true);
        }
        match done {
            Ok(()) => self.troubles.clear(id),
            Err(Deferral::Store(error)) => self.defer(id, &error).await,
            Err(Deferral::NoThread(error)) => self.defer(id, &error).await,
            Err(Deferral::LeftToOthers) => self.give_back(id).await,
        }
    }

    async fn generate_one(
        &self,
        Generation { custom_csr, attempts, starts, job_id: _, traceparent: _ }: Generation,
    ) -> Result<(), Deferral> {
        let (id, key_type) = (custom_csr.id, custom_csr.request.key_type);
        if starts > self.limits.starts {
            let reason = format!("Generation was started {} times and never came to a result.", self.limits.starts);
            return Ok(self.fail(id, key_type, &reason).await?);
        }
        if attempts >= self.limits.attempts() {
            return Ok(self.fail(id, key_type, &format!("Generation failed {attempts} times.")).await?);
        }
        if key_type == KeyType::Rsa2048 && self.generate_from_pool(&custom_csr).await {
            return Ok(());
        }
        let mut made = 0;
        loop {
            made += 1;
            let unfit = match self.attempt(custom_csr.clone()).await {
                Ok(made) => match self.patiently(|| self.store.complete_generation(id, &made, self.clock.now())).await? {
                    CompletionOutcome::KeyInUse => self.maker.failed_checks.report(Check::InUse),
                    outcome => {
                        let stored = outcome.is_completed();
                        self.count(&custom_csr, stored);
                        tracing::info!(custom_csr_id = %id, key_type = key_type.as_str(), stored, "generated");
                        return Ok(());
                    }
                },
                Err(AttemptError::Make(MakeError::Unfit(unfit))) => unfit,
                Err(AttemptError::Thread(ThreadError::Ended) | AttemptError::Make(MakeError::NoMasterKey)) => {
                    return Err(Deferral::LeftToOthers);
                }
                Err(error @ AttemptError::Thread(ThreadError::NoThread)) => return Err(Deferral::NoThread(error)),
                Err(error) => return Ok(self.count_attempt(id, key_type, attempts, &error).await?),
            };
            // Another key, in a time of its own.
            if made == KEYS_OF_ATTEMPT {
                return Ok(self.count_attempt(id, key_type, attempts, &AttemptError::Make(unfit.into())).await?);
            }
        }
    }

    /// Completes the row with a key of the key pool. Returns false if the row needs a fresh key: the key pool is empty, or using it failed.
    /// No attempt is counted.
    async fn generate_from_pool(&self, custom_csr: &CustomCsr) -> bool {
        let Some(pool) = &self.key_pool else { return false };
        let id = custom_csr.id;
        let key = match pool.lease().await {
            Ok(Some(key)) => key,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(custom_csr_id = %id, %error, "no key was leased from the key pool: a fresh one is made");
                return false;
            }
        };
        let (of, leased, maker) = (custom_csr.clone(), key.clone(), Arc::clone(&self.maker));
        let timed = move || metrics::timed_generation(of.request.key_type, KeySource::Pool, || maker.make_with(&of, &leased));
        let made = on_a_thread_of(&self.quick_threads, timed).await;
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(custom_csr_id = %id, pool_key_id = key.id, %error, "a key of the key pool failed and is discarded: a fresh one is made");
                self.discard(&key).await;
                return false;
            }
        };
        match self.patiently(|| self.store.complete_pooled(id, &made, &key, self.clock.now())).await {
            Ok(CompletionOutcome::Completed) => {
                self.count(custom_csr, true);
                tracing::info!(custom_csr_id = %id, key_type = KeyType::Rsa2048.as_str(), "generated from the pool");
                true
            }
            Ok(CompletionOutcome::LeaseLost) => false,
            Ok(CompletionOutcome::KeyInUse) => {
                self.maker.failed_checks.report(Check::InUse);
                self.discard(&key).await;
                false
            }
            // It was unsealed, so it must not serve another custom CSR.
            Ok(CompletionOutcome::NotPending) => {
                self.count(custom_csr, false);
                self.discard(&key).await;
                true
            }
            Err(error) => {
                tracing::warn!(custom_csr_id = %id, pool_key_id = key.id, %error, "a key of the key pool could not be used: a fresh one is made");
                self.discard(&key).await;
                false
            }
        }
    }

    /// Deletes a leased key. If that fails, the lease expires, and the purge deletes the key.
    async fn discard(&self, key: &PoolKey) {
        if let Err(error) = self.store.discard_pool_key(key).await {
            tracing::warn!(pool_key_id = key.id, %error, "a key of the key pool was not deleted: the purge deletes it when its lease expires");
        }
    }

    /// Makes a fresh key and its CSR.
    async fn attempt(&self, custom_csr: CustomCsr) -> Result<GeneratedCsr, AttemptError> {
        let (maker, key_type) = (Arc::clone(&self.maker), custom_csr.request.key_type);
        let timed = move || metrics::timed_generation(key_type, KeySource::Fresh, || maker.make(&custom_csr));
        if !key_type.takes_long() {
            return on_a_thread_of(&self.quick_threads, timed).await;
        }
        let made = on_a_thread_of(&self.slow_threads, timed).await?;
        // Quick ones come many at a time anyway.
        self.slow_threads.gather().await;
        Ok(made)
    }

    /// Counts what was made: the custom CSR is active with it, or it was in vain.
    fn count(&self, custom_csr: &CustomCsr, stored: bool) {
        let key_type = custom_csr.request.key_type;
        trace::ended(if stored { GenerationOutcome::Active } else { GenerationOutcome::Discarded }.as_str(), false);
        if stored {
            metrics::became_active(key_type, custom_csr.created_at, self.clock.now());
        } else {
            metrics::generation_ended(key_type, GenerationOutcome::Discarded);
        }
    }

    async fn count_attempt(&self, id: CustomCsrId, key_type: KeyType, attempts: u32, error: &AttemptError) -> Result<(), StoreError> {
        tracing::warn!(custom_csr_id = %id, attempt = attempts + 1, %error, "generation failed");
        let delay = usize::try_from(attempts).ok().and_then(|done| self.limits.retry_delays.get(done));
        let Some(delay) = delay else {
            let reason = format!("Generation failed {} times, the last time because {error}.", self.limits.attempts());
            return self.fail(id, key_type, &reason).await;
        };
        let retried = self.patiently(|| self.store.retry_generation(id, attempts, *delay, self.clock.now())).await?;
        let outcome = if retried { GenerationOutcome::Retried } else { GenerationOutcome::Discarded };
        trace::ended(outcome.as_str(), true);
        metrics::generation_ended(key_type, outcome);
        Ok(())
    }

    async fn fail(&self, id: CustomCsrId, key_type: KeyType, reason: &str) -> Result<(), StoreError> {
        let failed = self.patiently(|| self.store.fail_generation(id, reason, self.clock.now())).await?;
        let outcome = if failed { GenerationOutcome::Failed } else { GenerationOutcome::Discarded };
        trace::ended(outcome.as_str(), failed);
        metrics::generation_ended(key_type, outcome);
        tracing::error!(custom_csr_id = %id, reason, failed, "generation is given up");
        Ok(())
    }

    /// Repeats a store call while the database is unavailable, as long as the limits allow. Each call is one guarded transaction, so that
    /// one whose answer was lost may be repeated too.
    async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(&self, call: impl Fn() -> F) -> Result<T, StoreError> {
        let end = Instant::now() + self.limits.database_patience;
        let mut pause = Duration::from_millis(50);
        loop {
            match call().await {
                Err(StoreError::Unavailable(_) | StoreError::Ambiguous(_)) if Instant::now() + pause < end => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                result => return result,
            }
        }
    }
}

/// Everything that takes processor time runs on a key thread. No connection is held meanwhile.
async fn on_a_thread_of<F>(threads: &KeyThreads, make: F) -> Result<GeneratedCsr, AttemptError>
where
    F: FnOnce() -> Result<GeneratedCsr, MakeError> + Send + 'static,
{
    Ok(threads.run(make).await??)
}

#[cfg(test)]
mod tests {
    use shared::{
        clock::SystemClock,
        seal::{MasterKey, Sealer},
        testing::{TestDatabase, actor, new_custom_csr, now, zone},
    };

    use super::*;
    use crate::{
        keys::{aws_lc::AwsLc, blocked::BlockedKeys, threads::Priority},
        trouble::Trouble,
    };

    /// Runs the job of one row on these threads. Returns the error that keeps it pending, if any.
    async fn trouble_of_a_row_that_stays_pending(threads: KeyThreads) -> Option<String> {
        let (test, threads) = (TestDatabase::new().await, Arc::new(threads));
        let store = Arc::clone(&test.database.store);
        let sealer = Arc::new(Sealer::new(MasterKey::generate().unwrap(), Vec::new()));
        store.register_master_key(&sealer.current_id(), now()).await.unwrap();
        store.grant_scope(&zone("z"), None, Some(1), &actor(), now()).await.unwrap();
        let new = new_custom_csr(&zone("z"), KeyType::P256v1);
        store.accept_custom_csr(&new, &actor(), now()).await.unwrap();
        let generator = Generator {
            store,
            maker: Arc::new(Maker {
                key_generator: Arc::new(AwsLc),
                sealer,
                blocked_keys: BlockedKeys::default(),
                failed_checks: Arc::default(),
            }),
            slow_threads: Arc::clone(&threads),
            quick_threads: threads,
            clock: Arc::new(SystemClock),
            key_pool: None,
            troubles: Troubles::default(),
            limits: Limits::default(),
        };
        generator.run(new.id).await;
        let untouched = "SELECT COUNT(*) FROM custom_csrs WHERE status = 'pending' AND attempts = 0 AND starts = 0";
        assert_eq!(test.number(untouched).await, 1, "neither an attempt nor a start is counted");
        assert_eq!(test.number("SELECT COUNT(*) FROM {jobs} WHERE status = 'Pending'").await, 2, "the job that ran here, and a new one");
        let last = generator.troubles.last();
        last.borrow().as_ref().and_then(Trouble::current).map(str::to_owned)
    }

    #[tokio::test]
    async fn a_row_that_gets_no_thread_stays_pending_and_says_why() {
        let trouble = trouble_of_a_row_that_stays_pending(KeyThreads::that_get_no_thread()).await;
        assert_eq!(trouble.unwrap(), "the key generation has no thread: the operating system gives none");
    }

    #[tokio::test]
    async fn a_row_whose_worker_stops_before_its_key_is_made_is_given_back() {
        let threads = KeyThreads::start(1, Duration::from_mins(1), Priority::Lowest).unwrap();
        assert!(threads.end(Duration::from_mins(1)).await);
        assert_eq!(trouble_of_a_row_that_stays_pending(threads).await, None);
    }
}
