//! Makes the private key and the CSR of one pending custom CSR.

use std::{future::Future, iter::once, sync::Arc, time::Duration};

use futures::future::join_all;
use shared::{
    clock::Clock,
    error::StoreError,
    ids::CustomCsrId,
    model::{CustomCsr, KeyType},
    storage::{GeneratedCsr, Generation, PoolKey, PooledCompletion, Store},
};
use tokio::time::Instant;

use crate::{
    key_pool::KeyPool,
    keys::threads::{KeyThreads, ThreadError},
    make::{MakeError, Maker},
    trouble::Troubles,
};

/// Rows that one job makes keys for at most: a job costs the queue the same whatever it stands for. Of RSA few, so that other processes
/// have their share.
const fn batch(key_type: KeyType) -> u32 {
    match key_type {
        KeyType::Rsa2048 => 4,
        KeyType::P256v1 => 64,
    }
}

/// How often generation may fail, hang or kill the process before its custom CSR does.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The pauses before the second attempt, the third and so on: one attempt more than there are pauses.
    pub retry_delays: Vec<Duration>,
    /// Starts without any result, after which the row is taken for one that kills the process.
    pub starts: u32,
    /// How long one generation may take.
    pub generation_time: Duration,
    /// How long a database that is away is waited for, before the row is left to the sweep.
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

/// Why one attempt made nothing. What it says is shown to the tenant: nothing secret.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The thread came back with nothing.
    #[error("the key generation {0}")]
    Thread(#[from] ThreadError),
    /// It ran and made nothing.
    #[error("{0}")]
    Make(#[from] MakeError),
}

/// Runs generations.
pub struct Generator {
    /// Where the rows are.
    pub store: Arc<dyn Store>,
    /// Makes keys and CSRs.
    pub maker: Arc<Maker>,
    /// Where they are made.
    pub threads: KeyThreads,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// RSA keys made ahead, where there are any.
    pub key_pool: Option<Arc<KeyPool>>,
    /// What the database refuses, and which rows wait because of it.
    pub troubles: Troubles,
    /// When to give up.
    pub limits: Limits,
}

impl Generator {
    /// Handles one job: its row, and with it others that wait for a key of the same type. It never fails: what could not be done is
    /// written on the row, or the sweep finds the row again.
    pub async fn run(&self, id: CustomCsrId) {
        match self.patiently(|| self.start(id)).await {
            Ok(None) => tracing::debug!(custom_csr_id = %id, "nothing to do: deleted, or no longer pending"),
            Ok(Some(first)) => {
                let others = self.others(&first).await;
                // Each by itself: one that hangs or fails keeps no other waiting. Their results meet again in one commit.
                drop(join_all(once(first).chain(others).map(|generation| self.generate(generation))).await);
            }
            // The job ends with this, and the sweep finds the row.
            Err(error) => self.troubles.report(id, &error),
        }
    }

    /// Starts a row. A start that may have been counted although its answer is an error is taken back.
    async fn start(&self, id: CustomCsrId) -> Result<Option<Generation>, StoreError> {
        let started = self.store.start_generation(id).await;
        if let Err(StoreError::Ambiguous(_) | StoreError::Corrupt(_) | StoreError::Internal(_)) = &started {
            let _ = self.store.forget_start(id).await;
        }
        started
    }

    /// Others to make beside this one; none where they cannot be had: they have their jobs, or the sweep finds them.
    async fn others(&self, first: &Generation) -> Vec<Generation> {
        let limit = batch(first.custom_csr.request.key_type) - 1;
        self.store.start_others(first, limit).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a row is started alone");
            Vec::new()
        })
    }

    /// Takes the start of a row back, whatever the error was: none of the database is the row's fault. The row is tried again after a
    /// pause, which grows with each error.
    async fn defer(&self, id: CustomCsrId, error: &StoreError) {
        self.troubles.report(id, error);
        let pause = self.troubles.pause(id);
        if self.store.defer_generation(id, pause).await.is_err() {
            // The sweep finds the row. Where this fails too, one start too many is counted: of 50 that is little.
            let _ = self.store.forget_start(id).await;
        }
    }

    /// Leaves a row that was not started to another worker. Where that fails, the sweep finds the row.
    pub async fn give_back(&self, id: CustomCsrId) {
        if let Err(error) = self.store.defer_generation(id, Duration::ZERO).await {
            tracing::warn!(custom_csr_id = %id, %error, "a custom CSR waits for the sweep: it could not be given back");
        }
    }

    async fn generate(&self, generation: Generation) {
        let id = generation.custom_csr.id;
        match self.generate_one(generation).await {
            Ok(()) => self.troubles.clear(id),
            Err(error) => self.defer(id, &error).await,
        }
    }

    async fn generate_one(&self, Generation { custom_csr, attempts, starts, job_id: _ }: Generation) -> Result<(), StoreError> {
        let id = custom_csr.id;
        if starts > self.limits.starts {
            let reason = format!("Generation was started {} times and never came to a result.", self.limits.starts);
            return self.fail(id, &reason).await;
        }
        if attempts >= self.limits.attempts() {
            return self.fail(id, &format!("Generation failed {attempts} times.")).await;
        }
        let key_type = custom_csr.request.key_type;
        if key_type == KeyType::Rsa2048 && self.generate_from_pool(&custom_csr).await {
            return Ok(());
        }
        match self.attempt(custom_csr).await {
            Ok(made) => {
                let stored = self.patiently(|| self.store.complete_generation(id, &made, self.clock.now())).await?;
                tracing::info!(custom_csr_id = %id, key_type = key_type.as_str(), stored, "generated");
                Ok(())
            }
            Err(error) => self.count_attempt(id, attempts, &error).await,
        }
    }

    /// Whether the row needs nothing more. False if the pool has no key, or if anything about the pool or its key errs: a fresh key is
    /// made then, and no attempt is counted.
    async fn generate_from_pool(&self, custom_csr: &CustomCsr) -> bool {
        let Some(pool) = &self.key_pool else { return false };
        let id = custom_csr.id;
        let key = match pool.lease().await {
            Ok(Some(key)) => key,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(custom_csr_id = %id, %error, "the key pool gives no key: a fresh one is made");
                return false;
            }
        };
        let (custom_csr, leased, maker) = (custom_csr.clone(), key.clone(), Arc::clone(&self.maker));
        let made = self.on_a_key_thread(move || maker.make_with(&custom_csr, &leased)).await;
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(custom_csr_id = %id, pool_key_id = key.id, %error, "a pool key is discarded, and a fresh key made");
                self.discard(&key).await;
                return false;
            }
        };
        match self.patiently(|| self.store.complete_pooled(id, &made, &key, self.clock.now())).await {
            Ok(PooledCompletion::Completed) => {
                tracing::info!(custom_csr_id = %id, key_type = KeyType::Rsa2048.as_str(), "generated from the pool");
                true
            }
            Ok(PooledCompletion::LeaseLost) => false,
            // It was unsealed: nobody else is to have it.
            Ok(PooledCompletion::NotPending) => {
                self.discard(&key).await;
                true
            }
            Err(error) => {
                tracing::warn!(custom_csr_id = %id, pool_key_id = key.id, %error, "a pool key cannot be used: a fresh one is made");
                self.discard(&key).await;
                false
            }
        }
    }

    /// Deletes a leased key. Where that fails, the lease expires, and the purge deletes the key.
    async fn discard(&self, key: &PoolKey) {
        if let Err(error) = self.store.discard_pool_key(key).await {
            tracing::warn!(pool_key_id = key.id, %error, "a pool key is deleted only when its lease expires");
        }
    }

    /// Everything that takes processor time happens on a key thread; no connection is held meanwhile.
    async fn attempt(&self, custom_csr: CustomCsr) -> Result<GeneratedCsr, AttemptError> {
        let maker = Arc::clone(&self.maker);
        self.on_a_key_thread(move || maker.make(&custom_csr)).await
    }

    async fn on_a_key_thread<F>(&self, make: F) -> Result<GeneratedCsr, AttemptError>
    where
        F: FnOnce() -> Result<GeneratedCsr, MakeError> + Send + 'static,
    {
        Ok(self.threads.run(make).await??)
    }

    async fn count_attempt(&self, id: CustomCsrId, attempts: u32, error: &AttemptError) -> Result<(), StoreError> {
        tracing::warn!(custom_csr_id = %id, attempt = attempts + 1, %error, "generation failed");
        let delay = usize::try_from(attempts).ok().and_then(|done| self.limits.retry_delays.get(done));
        match delay {
            Some(delay) => self.patiently(|| self.store.retry_generation(id, attempts, *delay, self.clock.now())).await.map(drop),
            None => self.fail(id, &format!("Generation failed {} times, the last time because {error}.", self.limits.attempts())).await,
        }
    }

    async fn fail(&self, id: CustomCsrId, reason: &str) -> Result<(), StoreError> {
        let failed = self.patiently(|| self.store.fail_generation(id, reason, self.clock.now())).await?;
        tracing::error!(custom_csr_id = %id, reason, failed, "given up");
        Ok(())
    }

    /// Repeats a store call while the database is away, for as long as the limits allow. Each call is one guarded transaction,
    /// so that one whose answer was lost may be repeated too.
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
