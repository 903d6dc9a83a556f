//! What is done now and then: the sweep and the purge.

use std::{sync::Arc, time::Duration};

use shared::{error::StoreError, storage::Store};
use tokio::sync::watch;

/// How often, and how far back.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Between two sweeps.
    pub sweep_interval: Duration,
    /// How long a finished job stays.
    pub purge_after: Duration,
    /// How long a worker is silent before its row may go as well, if that is longer: a living one needs its row.
    pub worker_gone_after: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { sweep_interval: Duration::from_secs(30), purge_after: Duration::from_hours(1), worker_gone_after: Duration::from_mins(1) }
    }
}

/// Sweeps and purges until told to stop. The first sweep is at once: a crash may have left something.
pub async fn maintain(store: Arc<dyn Store>, schedule: Schedule, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(schedule.sweep_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = once(&*store, schedule).await {
            tracing::warn!(%error, "the sweep has to wait for the next time");
        }
    }
}

async fn once(store: &dyn Store, schedule: Schedule) -> Result<(), StoreError> {
    let requeued = store.sweep().await?.requeued;
    if requeued > 0 {
        tracing::info!(requeued, "pending custom CSRs without a live job got a new one");
    }
    // What it compares with was written by the database's clock, or by those of several hosts.
    let now = store.vitals(Duration::ZERO).await?.now;
    let seen_before = now.minus(schedule.purge_after.max(schedule.worker_gone_after));
    let purged = store.purge(now.minus(schedule.purge_after), seen_before, now).await?;
    if purged.jobs + purged.workers > 0 {
        tracing::debug!(jobs = purged.jobs, workers = purged.workers, "purged");
    }
    Ok(())
}
