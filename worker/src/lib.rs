//! The workers of csrd: they make private keys and certification requests, and maintain the queue.

mod ari;
mod csr;
mod deliver;
mod generate;
mod handler;
mod heartbeat;
mod incident;
mod key_pool;
pub mod keys;
mod links;
mod maintenance;
mod make;
mod poll;
mod queue;
mod renew;
mod trouble;
mod webhook_key;

use std::{
    sync::{Arc, Once, OnceLock},
    time::Duration,
};

use ari::{Asker, Issuer};
use deliver::Deliverer;
use futures::future::join_all;
use generate::Generator;
pub use generate::Limits;
pub use heartbeat::Heartbeat;
use incident::Rekeyer;
use key_pool::{KeyPool, refill};
use keys::{
    KeyGenerator,
    blocked::BlockedKeys,
    quality::FailedChecks,
    threads::{KeyThreads, Priority},
};
use links::Links;
pub use maintenance::Schedule;
use maintenance::maintain;
use make::Maker;
use queue::{Supervised, Work, supervise};
use renew::Renewer;
use shared::{
    ari::AriDirectory,
    clock::Clock,
    outbound::OutboundSettings,
    seal::Sealer,
    storage::{Database, Store},
};
use tokio::{
    sync::{Notify, OnceCell, watch},
    task::JoinSet,
};
pub use trouble::Trouble;
use trouble::Troubles;
pub use webhook_key::{NoWebhookKey, webhook_key};

/// How long apalis and the key threads may take to end.
const END_TIME: Duration = Duration::from_secs(1);
/// The most webhooks that one process delivers to at once.
const WEBHOOKS_AT_ONCE: usize = 32;

/// The most plans of rekeys that one process runs at once.
const INCIDENTS_AT_ONCE: usize = 4;

/// What the workers of one process need.
pub struct WorkerConfig {
    /// The number of key threads, at least one: for slow keys, and as many for quick ones.
    pub threads: usize,
    /// Seals private keys.
    pub sealer: Arc<Sealer>,
    /// Makes private keys.
    pub key_generator: Arc<dyn KeyGenerator>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When a generation is given up.
    pub limits: Limits,
    /// When to sweep and purge.
    pub schedule: Schedule,
    /// How often the worker shows that it lives.
    pub heartbeat: Heartbeat,
    /// The number of RSA keys that all processes on this database together make ahead. 0 makes none.
    pub key_pool_size: u32,
    /// Keys that are not to be used.
    pub blocked_keys: BlockedKeys,
    /// How webhooks are told of events.
    pub outbound: OutboundSettings,
    /// The URL that hand-over links of events begin with, without a slash at the end. `None`: events have no links.
    pub public_url: Option<String>,
    /// The directories of the issuers to ask when certificates are to be renewed.
    pub ari_directories: Vec<AriDirectory>,
}

/// The running workers of this process.
pub struct Workers {
    id: String,
    stop: watch::Sender<bool>,
    end: watch::Sender<bool>,
    alive: watch::Receiver<bool>,
    running: watch::Receiver<usize>,
    delivering: watch::Receiver<usize>,
    rekeying: watch::Receiver<usize>,
    cut: watch::Receiver<bool>,
    trouble: watch::Receiver<Option<Trouble>>,
    tasks: JoinSet<()>,
    key_threads: Vec<Arc<KeyThreads>>,
    failed_checks: Arc<FailedChecks>,
}

impl Workers {
    /// Starts the workers on this database.
    ///
    /// # Errors
    ///
    /// If the runtime of the key threads cannot be built.
    pub fn start(database: &Database, config: WorkerConfig) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let (alive_sender, alive) = watch::channel(false);
        let (running_sender, running) = watch::channel(0);
        let (cut_sender, cut) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let failed_checks = Arc::new(FailedChecks::default());
        let (delivering_sender, delivering) = watch::channel(0);
        let links = Arc::new(Links {
            public_url: config.public_url.clone(),
            store: Arc::clone(&database.store),
            sealer: Arc::clone(&config.sealer),
            clock: Arc::clone(&config.clock),
            made: OnceCell::new(),
            said: Once::new(),
        });
        look_after_certificates(&mut tasks, &database.store, &config, &links, &stopped);
        let deliverer = Arc::new(Deliverer {
            store: Arc::clone(&database.store),
            sealer: Arc::clone(&config.sealer),
            clock: Arc::clone(&config.clock),
            settings: config.outbound,
            links: Arc::clone(&links),
            outbound: OnceLock::new(),
            woken: watch::Sender::new(0),
        });
        let (rekeying_sender, rekeying) = watch::channel(0);
        let rekeyer = Arc::new(Rekeyer {
            store: Arc::clone(&database.store),
            sealer: Arc::clone(&config.sealer),
            clock: Arc::clone(&config.clock),
            links,
            woken: watch::Sender::new(0),
        });
        let maker = Arc::new(Maker {
            key_generator: config.key_generator,
            sealer: config.sealer,
            blocked_keys: config.blocked_keys,
            failed_checks: Arc::clone(&failed_checks),
        });
        let (mut key_pool, mut key_threads) = (None, Vec::new());
        if config.key_pool_size > 0 {
            let pool = Arc::new(KeyPool {
                store: Arc::clone(&database.store),
                maker: Arc::clone(&maker),
                clock: Arc::clone(&config.clock),
                size: config.key_pool_size,
                taken: Notify::new(),
            });
            let thread = Arc::new(KeyThreads::start(1, config.limits.generation_time, Priority::Idle)?);
            key_threads.push(Arc::clone(&thread));
            tasks.spawn(refill(Arc::clone(&pool), thread, running.clone(), stopped.clone()));
            key_pool = Some(pool);
        }
        let of = |priority| KeyThreads::start(config.threads, config.limits.generation_time, priority).map(Arc::new);
        let (slow_threads, quick_threads) = (of(Priority::Idle)?, of(Priority::Lowest)?);
        key_threads.extend([Arc::clone(&slow_threads), Arc::clone(&quick_threads)]);
        let generator = Arc::new(Generator {
            store: Arc::clone(&database.store),
            maker,
            slow_threads,
            quick_threads,
            clock: Arc::clone(&config.clock),
            key_pool,
            troubles: Troubles::default(),
            limits: config.limits,
        });
        let trouble = generator.troubles.last();
        // Twice the threads: while some jobs wait for the database, keys are made for the others.
        let concurrency = config.threads.max(1) * 2;
        let id = ulid::Ulid::generate().to_string();
        let supervised = Supervised {
            id: id.clone(),
            queue: database.queue.clone(),
            work: Work::Generations(generator),
            concurrency,
            heartbeat: config.heartbeat,
            alive: alive_sender,
            stop: stopped.clone(),
            end: ended,
            running: running_sender,
            cut: cut_sender,
        };
        // What is not delivered or rekeyed is due again: the health of the process does not depend on these two.
        let deliveries = supervised.beside(Work::Deliveries(Arc::clone(&deliverer)), WEBHOOKS_AT_ONCE, delivering_sender);
        let incidents = supervised.beside(Work::Incidents(Arc::clone(&rekeyer)), INCIDENTS_AT_ONCE, rekeying_sender);
        tasks.spawn(supervise(supervised));
        tasks.spawn(supervise(deliveries));
        tasks.spawn(deliverer.wake(stopped.clone()));
        tasks.spawn(rekeyer.watch(supervise(incidents), stopped.clone()));
        tasks.spawn(maintain(Arc::clone(&database.store), config.clock, config.schedule, stopped));
        Ok(Self { id, stop, end, alive, running, delivering, rekeying, cut, trouble, tasks, key_threads, failed_checks })
    }

    /// The ID of this process, which is part of the names of its workers in the job queue.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether a worker takes jobs.
    #[must_use]
    pub fn alive(&self) -> watch::Receiver<bool> {
        self.alive.clone()
    }

    /// How many keys of this process failed each check.
    #[must_use]
    pub fn failed_checks(&self) -> Arc<FailedChecks> {
        Arc::clone(&self.failed_checks)
    }

    /// What keeps keys from being made or stored, or `None`.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.clone()
    }

    /// Takes no more jobs and waits up to `patience` for those that run. Returns false if some were not finished, or were cut off before
    /// because the database is gone: they run again later.
    ///
    /// apalis is told to end only afterwards: a worker that ends reads no more results, and a job that waits for room for its result would
    /// wait for ever. A result that was not read is no loss: the row decides.
    ///
    /// The key threads end too, so that none ends while the process exits. Threads still at work after a second are left behind.
    pub async fn drain(mut self, patience: Duration) -> bool {
        self.stop.send_replace(true);
        let none_runs = tokio::time::timeout(patience, async {
            let _ = self.running.wait_for(|running| *running == 0).await;
            let _ = self.delivering.wait_for(|delivering| *delivering == 0).await;
            let _ = self.rekeying.wait_for(|rekeying| *rekeying == 0).await;
        });
        let none_runs = none_runs.await.is_ok();
        let finished = none_runs && !*self.cut.borrow();
        self.end.send_replace(true);
        let tasks = tokio::time::timeout(END_TIME, async { while self.tasks.join_next().await.is_some() {} });
        let threads = join_all(self.key_threads.iter().map(|threads| threads.end(END_TIME)));
        let (_, ended) = tokio::join!(tasks, threads);
        self.tasks.shutdown().await;
        if ended.contains(&false) {
            tracing::warn!("key threads are still at work: they are left behind");
        }
        finished
    }
}

/// Starts the renewal of certificates, and the questions to their issuers.
fn look_after_certificates(
    tasks: &mut JoinSet<()>,
    store: &Arc<dyn Store>,
    config: &WorkerConfig,
    links: &Arc<Links>,
    stopped: &watch::Receiver<bool>,
) {
    let (clock, interval) = (&config.clock, config.schedule.sweep_interval);
    let renewer = Renewer { store: Arc::clone(store), clock: Arc::clone(clock), links: Arc::clone(links), interval };
    tasks.spawn(renewer.run(stopped.clone()));
    if config.ari_directories.is_empty() {
        return;
    }
    let asker = Asker {
        store: Arc::clone(store),
        clock: Arc::clone(clock),
        settings: config.outbound.clone(),
        issuers: config.ari_directories.iter().cloned().map(Issuer::new).collect(),
        interval,
    };
    tasks.spawn(asker.run(stopped.clone()));
}
