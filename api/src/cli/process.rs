//! What `serve` and `worker` have in common: settings, workers, the end.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::Context;
use api::{
    health::Health,
    secret_file::{self, Content},
};
use clap::Args;
use shared::{
    ari::AriDirectory,
    clock::SystemClock,
    custom_csr::{KeyType, KeyTypes},
    outbound::{Gate, OutboundSettings},
    seal::Sealer,
    storage::{Access, Database, Migrate, Store},
    trace::Traces,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use worker::{
    Heartbeat, Limits, Schedule, WorkerConfig, Workers,
    keys::{self, blocked::BlockedKeys},
};

use super::{
    bad_setting,
    master_keys::{Following, Process},
    outbound::OutboundArgs,
    settings::{ari_directory, duration, key_type, public_url},
};

/// The most that a list of blocked keys may hold, in bytes: a million keys.
const BLOCKED_KEYS_BYTES: u64 = 64 * 1024 * 1024;

/// Settings of a process that works on the database for long.
#[derive(Args)]
pub struct ProcessArgs {
    /// How long requests and jobs in flight may take after SIGTERM
    #[arg(long, env = "CSRD_SHUTDOWN_TIMEOUT", hide_env_values = true, value_parser = duration, default_value = "30s")]
    pub shutdown_timeout: Duration,
    /// Between two signs of life of a worker
    #[arg(long, env = "CSRD_HEARTBEAT_INTERVAL", hide_env_values = true, value_parser = duration, default_value = "10s")]
    heartbeat_interval: Duration,
    /// Without a sign of life for this long, a worker's jobs are run by others
    #[arg(long, env = "CSRD_ORPHAN_AFTER", hide_env_values = true, value_parser = duration, default_value = "30s")]
    orphan_after: Duration,
    /// Between two searches for pending custom CSRs whose job is gone
    #[arg(long, env = "CSRD_SWEEP_INTERVAL", hide_env_values = true, value_parser = duration, default_value = "30s")]
    sweep_interval: Duration,
    /// How long finished jobs and the traces of dead workers are kept
    #[arg(long, env = "CSRD_PURGE_AFTER", hide_env_values = true, value_parser = duration, default_value = "1h")]
    purge_after: Duration,
    /// Connections to PostgreSQL for requests and results; two more listen and notify, and with workers three more are for jobs
    #[arg(long, env = "CSRD_POOL_SIZE", hide_env_values = true, value_name = "N", allow_negative_numbers = true, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pool_size: u32,
    /// RSA keys that all workers on the database together make ahead in idle time; 0 makes none
    #[arg(long, env = "CSRD_KEY_POOL_SIZE", hide_env_values = true, value_name = "N", allow_negative_numbers = true, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub key_pool_size: u32,
    /// Key types that requests and rekeys may ask for, of rsa2048, p256v1, rsa3072, rsa4096, p384, ed25519 and mldsa44; a worker makes each of them
    #[arg(long, env = "CSRD_KEY_TYPES", hide_env_values = true, value_name = "TYPES", value_delimiter = ',', default_value = "rsa2048,p256v1", value_parser = key_type)]
    key_types: Vec<KeyType>,
    /// Keys that are never used: lines of the hexadecimal SHA-256 of a SubjectPublicKeyInfo, with `#` before a comment
    #[arg(long, env = "CSRD_BLOCKED_KEYS", hide_env_values = true, value_name = "FILE")]
    blocked_keys: Option<PathBuf>,
    /// The URL of the service, with which hand-over links begin. Without it, links lead to where the request was sent, and events have none
    #[arg(long, env = "CSRD_PUBLIC_URL", hide_env_values = true, value_name = "URL", value_parser = public_url)]
    pub public_url: Option<String>,
    /// An issuer that workers ask when it wants its certificates renewed (ARI, RFC 9773), and its ACME directory; repeatable. NAME is the issuer's
    /// organization, its common name, or its key identifier in hexadecimal; the variable has semicolons between two
    #[arg(long, env = "CSRD_ARI_DIRECTORIES", hide_env_values = true, value_name = "NAME=URL", value_delimiter = ';', value_parser = ari_directory)]
    ari_directories: Vec<AriDirectory>,
}

impl ProcessArgs {
    /// How the database is opened.
    pub const fn access(&self) -> Access {
        Access { exclusive: true, pool_size: self.pool_size, migrate: Migrate::FirstStart }
    }

    /// Refuses what could not work.
    pub fn check(&self) -> anyhow::Result<()> {
        // The queue counts in whole seconds.
        if self.heartbeat_interval < Duration::from_secs(1) || self.orphan_after < self.heartbeat_interval * 2 {
            return Err(bad_setting("--orphan-after must be at least twice --heartbeat-interval, and that at least 1s"));
        }
        if self.sweep_interval.is_zero() {
            return Err(bad_setting("--sweep-interval must be longer than nothing"));
        }
        Ok(())
    }

    /// The key types that requests may ask for.
    pub fn key_types(&self) -> KeyTypes {
        KeyTypes::new(self.key_types.iter().copied())
    }

    /// Settings for requests to URLs from tenants and issuers. ACME directories at forbidden addresses are refused now.
    pub fn outbound(&self, args: &OutboundArgs) -> anyhow::Result<OutboundSettings> {
        for directory in &self.ari_directories {
            let refused = |reason| bad_setting(format!("--ari-directories: the URL of {} {reason}", directory.issuer));
            Gate::new(args.reach()).target(&directory.url).map_err(refused)?;
        }
        args.settings()
    }

    /// The keys that are not to be used.
    pub fn blocked_keys(&self) -> anyhow::Result<BlockedKeys> {
        let Some(path) = &self.blocked_keys else { return Ok(BlockedKeys::default()) };
        let refused = |problem: String| bad_setting(format!("--blocked-keys: {problem}"));
        let text = secret_file::read_up_to(path, Content::Public, BLOCKED_KEYS_BYTES).map_err(|error| refused(error.to_string()))?;
        BlockedKeys::parse(&text).map_err(|error| refused(format!("{}: {error}", path.display())))
    }

    /// What the process tells of its health.
    pub fn health(&self, database: &Database) -> Health {
        Health::new(Arc::clone(&database.store), Arc::new(SystemClock), self.orphan_after)
    }

    /// Has the database and the clocks looked at with every heartbeat.
    pub fn watch(&self, health: &Arc<Health>) -> JoinHandle<()> {
        let (health, interval) = (Arc::clone(health), self.heartbeat_interval);
        tokio::spawn(async move { health.watch(interval).await })
    }

    /// Starts the workers.
    pub fn start_workers(
        &self,
        database: &Database,
        sealer: &Arc<Sealer>,
        threads: usize,
        blocked_keys: BlockedKeys,
        outbound: OutboundSettings,
    ) -> anyhow::Result<Workers> {
        let config = WorkerConfig {
            threads,
            sealer: Arc::clone(sealer),
            key_generator: keys::fastest::key_generator(),
            clock: Arc::new(SystemClock),
            limits: Limits::default(),
            schedule: Schedule {
                sweep_interval: self.sweep_interval,
                purge_after: self.purge_after,
                worker_gone_after: self.orphan_after * 2,
            },
            heartbeat: Heartbeat { interval: self.heartbeat_interval, orphan_after: self.orphan_after },
            key_pool_size: self.key_pool_size,
            blocked_keys,
            outbound,
            public_url: self.public_url.clone(),
            ari_directories: self.ari_directories.clone(),
        };
        Workers::start(database, config).context("the key generation threads cannot be started")
    }

    /// Keeps the master keys of these workers as the files and the database have them, and reports them.
    pub fn follow_master_keys(
        &self,
        database: &Database,
        data_dir: &Path,
        sealer: Arc<Sealer>,
        workers: &Workers,
    ) -> anyhow::Result<Following> {
        let process = Process { id: workers.id(), data_dir, heartbeat: self.heartbeat_interval, orphan_after: self.orphan_after };
        Ok(Following::begin(&database.store, sealer, &process)?)
    }
}

/// A step of the start, or `None` if the process is to stop before it is done: a database or a name server that lets it wait is no reason
/// to stay.
pub async fn unless_stopped<T>(stop: &mut (impl Future<Output = ()> + Unpin), work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = stop => None,
    }
}

/// Resolves at SIGTERM, SIGINT or SIGQUIT. From this call on these signals do not end the process by themselves.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut quit = signal(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
        tracing::info!("stopping: no new requests and jobs are taken");
    })
}

/// Waits for the signal to stop, or for a fault of the storage that only a new start mends; whether it was the signal.
pub async fn stop_or_fault(stop: impl Future<Output = ()>, store: &dyn Store) -> bool {
    tokio::select! {
        () = stop => true,
        () = store.failed() => {
            tracing::error!("stopping: a task of the database panicked, and requests would wait for it: start csrd again");
            false
        }
    }
}

/// The end of a process: all that is left to do shares one time.
pub struct End {
    /// How long it may take in all.
    pub patience: Duration,
    began: OnceLock<Instant>,
}

/// What the steps after the jobs may take in any case: they are short, unless the database hangs.
const LAST_STEPS: Duration = Duration::from_millis(500);
/// The longest time for sending the last spans.
const FLUSH_TIME: Duration = Duration::from_secs(2);

impl End {
    /// One that may take `patience` from when it begins.
    pub const fn new(patience: Duration) -> Self {
        Self { patience, began: OnceLock::new() }
    }

    /// The time runs from now on.
    pub fn begin(&self) {
        self.began.get_or_init(Instant::now);
    }

    fn left(&self) -> Duration {
        self.patience.saturating_sub(self.began.get_or_init(Instant::now).elapsed())
    }

    /// Sends the last spans. They are lost if that takes too long.
    pub fn flush(&self, traces: Option<Traces>) {
        if let Some(traces) = traces {
            traces.end(self.left().clamp(LAST_STEPS, FLUSH_TIME));
        }
    }

    /// Closes the database, unless that takes too long: then the process ends without.
    pub async fn close(&self, database: Database) {
        if tokio::time::timeout(self.left().max(LAST_STEPS), database.close()).await.is_err() {
            tracing::warn!("the database does not answer: its connections are left open");
        }
        tracing::info!("stopped");
    }
}

/// 1 where something was cut off.
pub fn exit_code(nothing_cut: bool) -> ExitCode {
    if nothing_cut { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets the workers finish; what they cannot is given back. Whether nothing is left to the sweep.
pub async fn drain(workers: Workers, store: &dyn Store, end: &End) -> bool {
    // Before the last steps, and those of the workers themselves.
    let left = end.left();
    let patience = left.saturating_sub((left / 4).min(LAST_STEPS * 2));
    let id = workers.id().to_owned();
    let released = async { store.release_jobs().await.is_ok_and(|released| released > 0) };
    let done = workers.drain(patience).await || tokio::time::timeout(end.left().max(LAST_STEPS), released).await.unwrap_or(false);
    // Otherwise they count as live until they are missed. If it fails, that is all.
    let _ = tokio::time::timeout(end.left().max(LAST_STEPS), store.retire_workers(&id)).await;
    if !done {
        tracing::warn!("some jobs were not finished: they are run again when this worker is taken for dead");
    }
    done
}

/// The address that `setting` names.
pub async fn resolve(setting: &str, address: &str) -> anyhow::Result<SocketAddr> {
    let resolved = tokio::net::lookup_host(address).await.ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| bad_setting(format!("{setting}: {address} is not ADDRESS:PORT")))
}
