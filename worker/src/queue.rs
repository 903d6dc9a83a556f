//! The apalis worker: builds it, and starts it again if it ends before it should.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use apalis::prelude::{BackendExt, BoxDynError, Data, Event, EventListenerExt, WorkerBuilder, WorkerBuilderExt};
use apalis_postgres::PostgresStorage;
use apalis_sqlite::SqliteStorage;
use futures::stream::{self, Stream as _};
use shared::{
    job::{DELIVER_QUEUE, DeliverJob, GENERATE_CSR_QUEUE, GenerateCsrJob, INCIDENT_QUEUE, IncidentJob},
    seal::Sealer,
    storage::Queue,
};
use tokio::{sync::watch, time::Instant};

use crate::{deliver::Deliverer, generate::Generator, incident::Rekeyer, poll::EventsAndTicks};

/// How often to look for jobs without an event: an event may be missed, and a job whose time comes sends none.
const TICK: Duration = Duration::from_millis(500);

/// A worker that runs no job and has not looked for one for this long waits for a database that went silent: apalis' statements have no
/// time limit.
const SILENCE: Duration = Duration::from_secs(25);

/// After a run of this length, the back-off starts anew.
const STEADY: Duration = Duration::from_mins(1);

/// Counts the starts in this process. Every start has a name of its own: a job under a name that lives on would stay running for ever.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// The longest time between two searches for jobs of silent workers.
const LOOKS_FOR_ORPHANS: Duration = Duration::from_secs(3);

/// How often a worker shows that it lives, and when the others assume that it is dead.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// The longest time between two heartbeats.
    pub interval: Duration,
    /// After this time without a heartbeat, other workers run its jobs.
    pub orphan_after: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), orphan_after: Duration::from_secs(30) }
    }
}

impl Heartbeat {
    /// The interval that apalis gets. With each heartbeat a worker also searches for the jobs of silent workers, and skips those that are
    /// locked at that moment. So heartbeats are frequent, whatever the setting: such jobs must not wait for long after `orphan_after`.
    fn frequent(self) -> Duration {
        self.interval.min(LOOKS_FOR_ORPHANS)
    }

    /// `orphan_after` in whole heartbeats, as apalis counts it.
    fn missed(self) -> usize {
        let missed = self.orphan_after.as_millis().div_ceil(self.frequent().as_millis().max(1));
        usize::try_from(missed).unwrap_or(usize::MAX).max(1)
    }
}

/// What the jobs of a queue are for.
#[derive(Clone)]
pub enum Work {
    /// Keys and CSRs are made.
    Generations(Arc<Generator>),
    /// Webhooks are told of events.
    Deliveries(Arc<Deliverer>),
    /// Custom CSRs of plans are rekeyed.
    Incidents(Arc<Rekeyer>),
}

impl Work {
    const fn queue(&self) -> &'static str {
        match self {
            Self::Generations(_) => GENERATE_CSR_QUEUE,
            Self::Deliveries(_) => DELIVER_QUEUE,
            Self::Incidents(_) => INCIDENT_QUEUE,
        }
    }

    /// Changes when jobs were enqueued.
    fn enqueued(&self) -> watch::Receiver<u64> {
        match self {
            Self::Generations(generator) => generator.store.signals().enqueued(),
            Self::Deliveries(deliverer) => deliverer.woken.subscribe(),
            Self::Incidents(rekeyer) => rekeyer.woken.subscribe(),
        }
    }

    fn sealer(&self) -> &Arc<Sealer> {
        match self {
            Self::Generations(generator) => &generator.maker.sealer,
            Self::Deliveries(deliverer) => &deliverer.sealer,
            Self::Incidents(rekeyer) => &rekeyer.sealer,
        }
    }
}

/// The parts of a supervised worker.
#[derive(Clone)]
pub struct Supervised {
    /// The process' ID, which is part of the worker's name.
    pub id: String,
    /// The queue of its jobs.
    pub queue: Queue,
    /// What its jobs are for.
    pub work: Work,
    /// The most jobs that run concurrently.
    pub concurrency: usize,
    /// Its heartbeat.
    pub heartbeat: Heartbeat,
    /// Whether it runs.
    pub alive: watch::Sender<bool>,
    /// Tells it to take no more jobs.
    pub stop: watch::Receiver<bool>,
    /// Tells it to end.
    pub end: watch::Receiver<bool>,
    /// The number of jobs that run.
    pub running: watch::Sender<usize>,
    /// Whether jobs were cut off, and none was finished since.
    pub cut: watch::Sender<bool>,
}

/// Keeps one apalis worker running until told to stop.
pub async fn supervise(mut supervised: Supervised) {
    let mut stop = supervised.stop.clone();
    let mut failures = 0_u32;
    while !*stop.borrow() {
        let name = format!("{}-{}-{}", supervised.work.queue(), supervised.id, STARTS.fetch_add(1, Ordering::Relaxed));
        let started = Instant::now();
        let ended = supervised.run(&name).await;
        supervised.alive.send_replace(false);
        let error: BoxDynError = match ended {
            Ok(()) if *supervised.end.borrow() => return,
            Ok(()) => "it ended without an error".into(),
            Err(error) => error,
        };
        // Its connections may be dead too.
        supervised.queue = supervised.queue.renewed();
        failures = if started.elapsed() > STEADY { 0 } else { failures.saturating_add(1) };
        let pause = Duration::from_millis(200 << failures.min(4));
        tracing::warn!(worker = name, %error, ?pause, "the worker ended: it is started again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// Runs an apalis worker on a backend. The backends share no type, only their methods.
macro_rules! run_worker {
    ($this:expr, $name:expr, $polled:expr, $runner:expr, $handle:expr, $backend:expr) => {{
        let alive = $this.alive.clone();
        let worker = WorkerBuilder::new($name)
            .backend($backend)
            .data(Handler { runner: Arc::clone($runner), stop: $this.stop.clone(), running: $this.running.clone(), cut: $this.cut.clone() })
            .concurrency($this.concurrency)
            .on_event(move |_, event| {
                if matches!(event, Event::Start) {
                    alive.send_replace(true);
                }
            })
            .build($handle);
        tokio::select! {
            ended = worker.run_until($this.ended()) => ended.map_err(Into::into),
            () = $this.falls_silent($polled) => Err("it has not looked for jobs: the database does not answer".into()),
        }
    }};
}

impl Supervised {
    /// Another worker of this process, on which its health does not depend.
    #[must_use]
    pub fn beside(&self, work: Work, concurrency: usize, running: watch::Sender<usize>) -> Self {
        Self { work, concurrency, running, alive: watch::Sender::new(false), cut: watch::Sender::new(false), ..self.clone() }
    }

    async fn run(&self, name: &str) -> Result<(), BoxDynError> {
        let events = stream::unfold(self.work.enqueued(), |mut events| async move { events.changed().await.ok().map(|()| ((), events)) });
        let polled = watch::Sender::new(Instant::now());
        let (mut events, seen) = (Box::pin(events), polled.clone());
        let events = stream::poll_fn(move |context| {
            seen.send_replace(Instant::now());
            events.as_mut().poll_next(context)
        });
        let polled = polled.subscribe();
        let strategy = EventsAndTicks::new(Box::pin(events), TICK, self.stop.clone());
        let interval = self.heartbeat.frequent();
        // One job is fetched at a time: a buffered one sends no heartbeat, and others run it too. Not marking its start saves a write.
        macro_rules! configured {
            ($config:expr) => {
                $config
                    .queue(self.work.queue())
                    .batch_size(1)
                    .lock_tasks(false)
                    .heartbeat_interval(interval)
                    .missed_heartbeats(self.heartbeat.missed())
            };
        }
        macro_rules! sqlite {
            ($job:ty, $pool:expr) => {
                SqliteStorage::<$job>::new($pool).with_config(configured!(apalis_sqlite::Config::default())).poll_with_strategy(strategy)
            };
        }
        macro_rules! postgres {
            ($job:ty, $pool:expr) => {
                PostgresStorage::<$job>::new($pool)
                    .with_config(configured!(apalis_postgres::Config::default()))
                    .poll_with_strategy(strategy)
            };
        }
        match (&self.queue, &self.work) {
            (Queue::Sqlite(pool), Work::Generations(runner)) => {
                run_worker!(self, name, polled, runner, generate, sqlite!(GenerateCsrJob, pool))
            }
            (Queue::Postgres(pool), Work::Generations(runner)) => {
                run_worker!(self, name, polled, runner, generate, postgres!(GenerateCsrJob, pool))
            }
            (Queue::Sqlite(pool), Work::Deliveries(runner)) => run_worker!(self, name, polled, runner, deliver, sqlite!(DeliverJob, pool)),
            (Queue::Postgres(pool), Work::Deliveries(runner)) => {
                run_worker!(self, name, polled, runner, deliver, postgres!(DeliverJob, pool))
            }
            (Queue::Sqlite(pool), Work::Incidents(runner)) => run_worker!(self, name, polled, runner, rekey, sqlite!(IncidentJob, pool)),
            (Queue::Postgres(pool), Work::Incidents(runner)) => {
                run_worker!(self, name, polled, runner, rekey, postgres!(IncidentJob, pool))
            }
        }
    }

    /// Resolves if the worker runs no job, is not stopping, has the master key for them, and has not looked for jobs for too long.
    fn falls_silent(&self, polled: watch::Receiver<Instant>) -> impl Future<Output = ()> + Send + use<> {
        let (running, stop, sealer) = (self.running.subscribe(), self.stop.clone(), Arc::clone(self.work.sealer()));
        async move {
            let mut idle_since = Instant::now();
            loop {
                tokio::time::sleep(TICK).await;
                if *running.borrow() > 0 || *stop.borrow() || sealer.lacks().is_some() {
                    idle_since = Instant::now();
                }
                if idle_since.max(*polled.borrow()).elapsed() > SILENCE {
                    return;
                }
            }
        }
    }

    fn ended(&self) -> impl Future<Output = std::io::Result<()>> + Send + use<> {
        let mut end = self.end.clone();
        async move {
            let _ = end.wait_for(|end| *end).await;
            Ok(())
        }
    }
}

/// Runs jobs.
struct Handler<R> {
    runner: Arc<R>,
    stop: watch::Receiver<bool>,
    running: watch::Sender<usize>,
    cut: watch::Sender<bool>,
}

impl<R> Clone for Handler<R> {
    fn clone(&self) -> Self {
        Self { runner: Arc::clone(&self.runner), stop: self.stop.clone(), running: self.running.clone(), cut: self.cut.clone() }
    }
}

/// Counts a running job. One that is dropped before its end was cut off: its worker ended, as it does when the database is gone.
struct Running {
    count: watch::Sender<usize>,
    cut: watch::Sender<bool>,
    is_finished: bool,
}

impl Running {
    fn new<R>(handler: &Handler<R>) -> Self {
        handler.running.send_modify(|count| *count += 1);
        Self { count: handler.running.clone(), cut: handler.cut.clone(), is_finished: false }
    }

    fn finish(mut self) {
        self.is_finished = true;
        self.cut.send_replace(false);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_finished {
            self.cut.send_replace(true);
        }
        // Last: whoever waits for none to run asks then whether one was cut off.
        self.count.send_modify(|count| *count -= 1);
    }
}

/// Runs a job. It never returns an error: apalis would leave the job running.
///
/// Without the current master key it leaves the row to another worker, and its place stays taken until the master key is there: when all
/// places are, this worker takes no more jobs.
async fn generate(job: GenerateCsrJob, handler: Data<Handler<Generator>>) -> Result<(), BoxDynError> {
    let running = Running::new(&handler);
    match job.custom_csr_id() {
        None => tracing::error!("a job was dropped: it names no custom CSR"),
        // It was fetched while the process began to stop: another process gets a job for the row immediately.
        Some(id) if *handler.stop.borrow() => handler.runner.give_back(id).await,
        Some(id) if handler.runner.maker.sealer.lacks().is_some() => handler.runner.give_back(id).await,
        Some(id) => handler.runner.run(id).await,
    }
    running.finish();
    let (sealer, mut stop) = (&handler.runner.maker.sealer, handler.stop.clone());
    if sealer.lacks().is_some() {
        tokio::select! {
            () = sealer.can_seal() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    Ok(())
}

/// Runs the job of a webhook. It never returns an error: what is not delivered is due again.
async fn deliver(job: DeliverJob, handler: Data<Handler<Deliverer>>) -> Result<(), BoxDynError> {
    let running = Running::new(&handler);
    match job.webhook_id() {
        None => tracing::error!("a job was dropped: it names no webhook"),
        Some(id) => Arc::clone(&handler.runner).run(id, handler.stop.clone()).await,
    }
    running.finish();
    Ok(())
}

/// Runs the job of a plan. It never returns an error: what is left is left to another job.
async fn rekey(job: IncidentJob, handler: Data<Handler<Rekeyer>>) -> Result<(), BoxDynError> {
    let running = Running::new(&handler);
    match job.incident_id() {
        None => tracing::error!("a job was dropped: it names no plan"),
        Some(id) => handler.runner.run(id, handler.stop.clone()).await,
    }
    running.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_a_silent_worker_are_found_soon_after_it_counts_as_dead_and_never_before() {
        for interval in [1, 2, 3, 7, 10, 60].map(Duration::from_secs) {
            for orphan_after in [interval * 2, interval * 2 + Duration::from_secs(1), Duration::from_secs(30).max(interval * 2)] {
                let heartbeat = Heartbeat { interval, orphan_after };
                let counts_as_dead_after = heartbeat.frequent() * u32::try_from(heartbeat.missed()).unwrap();
                assert!(counts_as_dead_after >= orphan_after, "{heartbeat:?}");
                // Twice: the first look may find the jobs locked.
                assert!(counts_as_dead_after + heartbeat.frequent() * 2 < orphan_after + Duration::from_secs(10), "{heartbeat:?}");
            }
        }
    }
}
