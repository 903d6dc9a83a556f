//! The key pool: RSA keys made ahead, in the time that no job wants.

use std::{sync::Arc, time::Duration};

use shared::{
    clock::Clock,
    error::StoreError,
    model::{CustomCsr, KeyType},
    seal::{Binding, Sealer},
    storage::{GeneratedCsr, NewPoolKey, PoolKey, Store},
};
use tokio::sync::{Notify, watch};
use ulid::Ulid;

use crate::{
    csr::certification_request,
    jobs::generate_csr::{AttemptError, sealed},
    keygen::{KeyGenerator, KeyThreads},
    private_key::PrivateKey,
};

/// How often to look whether another process took keys. What this one takes is noticed at once.
const TICK: Duration = Duration::from_secs(5);

/// Longer than a worker may take over one generation, its patience with the database included.
const LEASE: Duration = Duration::from_mins(5);

/// One process' access to the pool, which all processes on the database share.
pub struct KeyPool {
    /// Where the keys are.
    pub store: Arc<dyn Store>,
    /// Seals them.
    pub sealer: Arc<Sealer>,
    /// Makes them.
    pub key_generator: Arc<dyn KeyGenerator>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Keys that all processes together make ahead.
    pub size: u32,
    /// Says that a key was taken.
    pub taken: Notify,
}

impl KeyPool {
    /// Leases a key; none where there is none.
    pub async fn lease(&self) -> Result<Option<PoolKey>, StoreError> {
        let leased = self.store.lease_pool_key(&self.sealer.current_id(), LEASE).await?;
        if leased.is_some() {
            self.taken.notify_one();
        }
        Ok(leased)
    }

    /// Adds keys until the pool is full, one at a time, and each only when no job runs here.
    async fn fill(&self, thread: &KeyThreads, running: &mut watch::Receiver<usize>) -> Result<(), StoreError> {
        while self.store.count_pool_keys().await? < u64::from(self.size) {
            let Ok(_) = running.wait_for(|running| *running == 0).await else { return Ok(()) };
            let (key_generator, sealer) = (Arc::clone(&self.key_generator), Arc::clone(&self.sealer));
            let made = thread.run(move || make_ahead(&*key_generator, &sealer)).await;
            let added = match made {
                Ok(Ok(key)) => self.store.add_pool_key(&key, self.size, self.clock.now()).await?,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "no key was added to the pool");
                    false
                }
                Err(error) => {
                    tracing::warn!(%error, "no key was added to the pool: the key generation did not end well");
                    false
                }
            };
            if !added {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Keeps the pool full until told to stop. `thread` is one beside those of the jobs, at a lower priority than they have: a job that
/// comes while a key is being made ahead finds its thread free and has the processor before it.
pub async fn refill(pool: Arc<KeyPool>, thread: KeyThreads, mut running: watch::Receiver<usize>, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let keep_full = async {
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = pool.taken.notified() => {}
            }
            if let Err(error) = pool.fill(&thread, &mut running).await {
                tracing::warn!(%error, "the key pool has to wait for the next time");
            }
        }
    };
    tokio::select! {
        () = keep_full => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

fn make_ahead(key_generator: &dyn KeyGenerator, sealer: &Sealer) -> Result<NewPoolKey, AttemptError> {
    let private_key = key_generator.generate(KeyType::Rsa2048)?;
    let spki_sha256 = private_key.spki_sha256();
    let id = Ulid::generate().to_string();
    let sealed_private_key = sealer.seal(&Binding::pool_key(&id, &spki_sha256), &private_key.to_private_key_info()?)?;
    Ok(NewPoolKey { id, spki_sha256, master_key_id: sealer.current_id(), sealed_private_key })
}

/// Makes a CSR with a key from the pool and seals the key for its custom CSR.
pub fn make_with(custom_csr: &CustomCsr, key: &PoolKey, sealer: &Sealer) -> Result<GeneratedCsr, AttemptError> {
    let private_key_info = sealer.open(&Binding::pool_key(&key.id, &key.spki_sha256), &key.sealed_private_key)?;
    let csr = certification_request(&custom_csr.request, &PrivateKey::parse(KeyType::Rsa2048, &private_key_info)?)?;
    sealed(custom_csr, csr, &private_key_info, sealer)
}
