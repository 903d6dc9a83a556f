//! Maintenance on a timer: the sweep and the purge.

use std::{sync::Arc, time::Duration};

use shared::{
    clock::Clock,
    incident,
    storage::{Store, StoreError},
};
use tokio::sync::watch;

/// How often to sweep, and what to purge.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The time between two sweeps.
    pub sweep_interval: Duration,
    /// How long a finished job is kept.
    pub purge_after: Duration,
    /// The row of a worker is kept as long as a finished job, and at least this long after the worker's last heartbeat: a worker that lives
    /// needs its row.
    pub worker_gone_after: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { sweep_interval: Duration::from_secs(30), purge_after: Duration::from_hours(1), worker_gone_after: Duration::from_mins(1) }
    }
}

/// Sweeps and purges until told to stop. The first sweep does not wait: a crash may have left rows without a job.
pub async fn maintain(store: Arc<dyn Store>, clock: Arc<dyn Clock>, schedule: Schedule, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(schedule.sweep_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = sweep_and_purge(&*store, schedule).await {
            tracing::warn!(%error, "the sweep failed: the next one tries again");
        }
        if let Err(error) = tell_time(&*store, &*clock).await {
            tracing::warn!(%error, "webhooks were not told of what expires: the next sweep tries again");
        }
    }
}

/// Records the events that are due, and deletes old deliveries and plans.
async fn tell_time(store: &dyn Store, clock: &dyn Clock) -> Result<(), StoreError> {
    let told = store.tell_time(clock.now()).await?;
    if told > 0 {
        tracing::info!(told, "events of custom CSRs and certificates that time brought");
    }
    store.purge_deliveries().await?;
    store.purge_incidents(clock.now().minus(incident::KEPT)).await.map(drop)
}

async fn sweep_and_purge(store: &dyn Store, schedule: Schedule) -> Result<(), StoreError> {
    let requeued = store.sweep().await?.requeued;
    if requeued > 0 {
        tracing::info!(requeued, "pending custom CSRs without a live job got a new one");
    }
    // The rows' times come from the database's clock, or from the clocks of several hosts: this host's own clock may differ.
    let now = store.vitals(Duration::ZERO).await?.now;
    let destroyed = store.destroy_due(now).await?;
    if destroyed > 0 {
        tracing::info!(destroyed, "deleted custom CSRs can no longer be restored: their keys were destroyed");
    }
    let seen_before = now.minus(schedule.purge_after.max(schedule.worker_gone_after));
    let purged = store.purge(now.minus(schedule.purge_after), seen_before, now).await?;
    if purged.jobs + purged.workers > 0 {
        tracing::debug!(jobs = purged.jobs, workers = purged.workers, "purged");
    }
    Ok(())
}
