//! The key pool: RSA keys made ahead, while no job runs.

use std::{sync::Arc, time::Duration};

use shared::{
    clock::Clock,
    storage::{PoolAddition, PoolKey, Store, StoreError},
};
use tokio::sync::{Notify, watch};

use crate::{
    keys::{quality::Check, threads::KeyThreads},
    make::{KEYS_OF_ATTEMPT, MakeError, Maker},
};

/// How often to check whether another process took keys. A key that this process takes wakes the refill immediately.
const TICK: Duration = Duration::from_secs(5);

/// Longer than one generation may take, including the time that the worker waits for the database.
const LEASE: Duration = Duration::from_mins(5);

/// One process' access to the key pool, which all processes on the database share.
pub struct KeyPool {
    /// Stores the keys.
    pub store: Arc<dyn Store>,
    /// Makes and seals them.
    pub maker: Arc<Maker>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The number of keys that all processes together make ahead.
    pub size: u32,
    /// Notified when a key was taken.
    pub taken: Notify,
}

impl KeyPool {
    /// Leases a key, or returns `None` if the key pool is empty or the current master key is not here.
    pub async fn lease(&self) -> Result<Option<PoolKey>, StoreError> {
        if self.maker.sealer.lacks().is_some() {
            return Ok(None);
        }
        let leased = self.store.lease_pool_key(&self.maker.sealer.current_id(), LEASE).await?;
        if leased.is_some() {
            self.taken.notify_one();
        }
        Ok(leased)
    }

    /// Adds keys until the key pool is full, one at a time, and starts each only while no job runs here.
    async fn fill(&self, thread: &KeyThreads, running: &mut watch::Receiver<usize>) -> Result<(), StoreError> {
        let mut unfit = 0;
        while self.maker.sealer.lacks().is_none() && self.store.count_pool_keys().await? < u64::from(self.size) {
            let Ok(_) = running.wait_for(|running| *running == 0).await else { return Ok(()) };
            let maker = Arc::clone(&self.maker);
            let made = thread.run(move || maker.make_ahead()).await;
            let added = match made {
                Ok(Ok(key)) => match self.store.add_pool_key(&key, self.size, self.clock.now()).await? {
                    PoolAddition::Added => true,
                    PoolAddition::NoRoom => false,
                    PoolAddition::KeyInUse => {
                        self.maker.failed_checks.report(Check::InUse);
                        false
                    }
                },
                // It was logged where it was made.
                Ok(Err(MakeError::Unfit(_))) if unfit + 1 < KEYS_OF_ATTEMPT => {
                    unfit += 1;
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "no key was added to the key pool");
                    false
                }
                Err(error) => {
                    tracing::warn!(%error, "no key was added to the key pool: the key generation failed");
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

/// Keeps the key pool full until told to stop. `thread` is not one of the jobs' threads, and its priority is lower: a job that comes while
/// a key is made ahead has a free thread and gets the processor first.
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
                tracing::warn!(%error, "the key pool was not refilled: it is tried again later");
            }
        }
    };
    tokio::select! {
        () = keep_full => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}
