//! The apalis worker: builds it, and starts it again if it ends before it should.

mod sqlite;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use apalis::prelude::{BackendExt, BoxDynError, Event, EventListenerExt, WorkerBuilder, WorkerBuilderExt};
use apalis_postgres::PostgresStorage;
use futures::stream::{self, Stream as _};
use shared::{
    job::{DELIVER_QUEUE, DeliverJob, GENERATE_CSR_QUEUE, GenerateCsrJob, INCIDENT_QUEUE, IncidentJob},
    seal::Sealer,
    storage::Queue,
};
use tokio::{sync::watch, time::Instant};

use self::sqlite::SqliteQueue;
use crate::{
    deliver::Deliverer,
    generate::Generator,
    handler::{Handler, deliver, generate, rekey},
    heartbeat::Heartbeat,
    incident::Rekeyer,
    poll::EventsAndTicks,
};

/// How often to look for jobs without an event: an event may be missed, and a job whose time comes sends none.
const TICK: Duration = Duration::from_millis(500);

/// A worker that runs no job and has not looked for one for this long waits for a database that went silent: apalis' statements have no
/// time limit.
const SILENCE: Duration = Duration::from_secs(25);

/// After a run of this length, the back-off starts anew.
const STEADY: Duration = Duration::from_mins(1);

/// Counts the starts in this process. Every start has a name of its own: a job under a name that lives on would stay running for ever.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// What the jobs of a queue are for.
#[derive(Clone)]
pub enum Work {
    /// Keys and CSRs are made.
    Generations(Arc<Generator>),
    /// Webhooks are told of events.
    Deliveries(Arc<Deliverer>),
    /// The custom CSRs of plans are rekeyed.
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
            ($job:ty, $writer:expr) => {
                SqliteQueue::<$job>::new($writer.clone(), configured!(apalis_sqlite::Config::default())).poll_with_strategy(strategy)
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
            (Queue::Sqlite(writer), Work::Generations(runner)) => {
                run_worker!(self, name, polled, runner, generate, sqlite!(GenerateCsrJob, writer))
            }
            (Queue::Postgres(pool), Work::Generations(runner)) => {
                run_worker!(self, name, polled, runner, generate, postgres!(GenerateCsrJob, pool))
            }
            (Queue::Sqlite(writer), Work::Deliveries(runner)) => {
                run_worker!(self, name, polled, runner, deliver, sqlite!(DeliverJob, writer))
            }
            (Queue::Postgres(pool), Work::Deliveries(runner)) => {
                run_worker!(self, name, polled, runner, deliver, postgres!(DeliverJob, pool))
            }
            (Queue::Sqlite(writer), Work::Incidents(runner)) => {
                run_worker!(self, name, polled, runner, rekey, sqlite!(IncidentJob, writer))
            }
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
