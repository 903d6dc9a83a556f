//! The key pool: RSA keys made ahead, in the time that no job wants.

use std::{sync::Arc, time::Duration};

use shared::{
    clock::Clock,
    error::StoreError,
    storage::{PoolKey, Store},
};
use tokio::sync::{Notify, watch};

use crate::{keys::threads::KeyThreads, make::Maker};

/// How often to look whether another process took keys. What this one takes is noticed at once.
const TICK: Duration = Duration::from_secs(5);

/// Longer than a worker may take over one generation, its patience with the database included.
const LEASE: Duration = Duration::from_mins(5);

/// One process' access to the pool, which all processes on the database share.
pub struct KeyPool {
    /// Where the keys are.
    pub store: Arc<dyn Store>,
    /// Makes and seals them.
    pub maker: Arc<Maker>,
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
        let leased = self.store.lease_pool_key(&self.maker.sealer.current_id(), LEASE).await?;
        if leased.is_some() {
            self.taken.notify_one();
        }
        Ok(leased)
    }

    /// Adds keys until the pool is full, one at a time, and each only when no job runs here.
    async fn fill(&self, thread: &KeyThreads, running: &mut watch::Receiver<usize>) -> Result<(), StoreError> {
        while self.store.count_pool_keys().await? < u64::from(self.size) {
            let Ok(_) = running.wait_for(|running| *running == 0).await else { return Ok(()) };
            let maker = Arc::clone(&self.maker);
            let made = thread.run(move || maker.make_ahead()).await;
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
pub async fn refill(pool: Arc<KeyPool>, thread: Arc<KeyThreads>, mut running: watch::Receiver<usize>, mut stop: watch::Receiver<bool>) {
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
