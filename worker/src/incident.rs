//! Incidents: rekeys the custom CSRs of running plans, turn by turn.

use std::{sync::Arc, time::Duration};

use shared::{
    clock::Clock,
    ids::{CustomCsrId, IncidentId},
    metrics,
    seal::Sealer,
    storage::{Store, StoreError, Successor, TURN_MAX, Turn, Turned},
};
use tokio::{sync::watch, task::JoinSet};

use crate::{links::Links, webhook_key::NoWebhookKey};

/// The time between two looks for running plans.
const LOOK: Duration = Duration::from_millis(500);
/// The shortest and the longest time between two turns of a plan with a schedule: one turn does all rekeys that are due, and each turn shows
/// that the runner is alive.
const PACE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The pause after an error, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Runs plans.
pub struct Rekeyer {
    /// Stores the plans and the custom CSRs.
    pub store: Arc<dyn Store>,
    /// Opens the key of hand-over links.
    pub sealer: Arc<Sealer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes the hand-over links of events.
    pub links: Arc<Links>,
    /// Changes when this process has enqueued jobs.
    pub woken: watch::Sender<u64>,
}

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
enum NoTurn {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Links(#[from] NoWebhookKey),
}

impl Rekeyer {
    /// Enqueues jobs for running plans, until told to stop. The first such plan starts the worker that takes these jobs: most databases never
    /// have one, and an idle worker keeps asking the database.
    pub async fn watch(self: Arc<Self>, worker: impl Future<Output = ()> + Send + 'static, mut stop: watch::Receiver<bool>) {
        let (mut waiting, mut started) = (Some(worker), JoinSet::new());
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            match self.store.wake_incidents().await {
                Ok(woken) => {
                    if woken.running > 0
                        && let Some(worker) = waiting.take()
                    {
                        started.spawn(worker);
                    }
                    if woken.jobs > 0 {
                        self.woken.send_modify(|count| *count = count.wrapping_add(1));
                    }
                }
                // An unavailable database has its own warnings.
                Err(error) => tracing::debug!(%error, "running plans were not looked for"),
            }
        }
        // It ends by itself.
        while started.join_next().await.is_some() {}
    }

    /// Runs one job: takes turns until the plan is done or another runner has it. It never fails: another job does what is left.
    pub async fn run(&self, id: IncidentId, mut stop: watch::Receiver<bool>) {
        let runner = ulid::Ulid::generate().to_string();
        let mut pause = PAUSE.0;
        // Without the current master key, this process makes no keys and no links. Others may.
        tokio::select! {
            () = self.sealer.can_seal() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        while !*stop.borrow() {
            let wait = match self.turn(id, &runner).await {
                Ok(Turned::NotRunning | Turned::Held) => return,
                Ok(Turned::Went { rekeyed, wait }) => {
                    rekeyed.into_iter().for_each(metrics::custom_csr_accepted);
                    pause = PAUSE.0;
                    if wait.is_zero() { wait } else { wait.clamp(PACE.0, PACE.1) }
                }
                Err(error) => {
                    tracing::warn!(incident_id = %id, %error, ?pause, "a plan of rekeys waits");
                    pause = (pause * 2).min(PAUSE.1);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        // Otherwise, other workers would wait until this runner counts as dead.
        if let Err(error) = self.store.end_turns(id, &runner).await {
            tracing::debug!(incident_id = %id, %error, "a plan of rekeys was not released: other workers wait");
        }
    }

    async fn turn(&self, incident_id: IncidentId, runner: &str) -> Result<Turned, NoTurn> {
        let links = self.links.get().await?;
        let now = self.clock.now();
        let successor = || {
            let id = CustomCsrId::new(now);
            Successor { id, handover: links.map(|links| links.fresh(id, None, now)) }
        };
        let successors = std::iter::repeat_with(successor).take(TURN_MAX).collect();
        Ok(self.store.take_turn(&Turn { incident_id, runner: runner.to_owned(), successors }, now).await?)
    }
}
