//! `csrd serve`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use api::{
    auth::{Authenticator, JwtSettings},
    server,
    state::AppState,
};
use clap::Args;
use shared::{
    clock::SystemClock,
    storage::Database,
    x509::{public_suffix::SuffixList, request::Validator, san::SanPolicy},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use worker::{
    WorkerConfig, Workers,
    jobs::{generate_csr::Limits, maintain::Schedule},
    keygen::AwsLc,
};

use super::{bad_setting, database::DatabaseArgs, demo, jwt::JwtArgs, keys, log, settings::duration};

/// Settings of `csrd serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, env = "CSRD_LISTEN", hide_env_values = true, default_value = "127.0.0.1:8080")]
    listen: String,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Key generation threads, by default one a core; 0 serves the API only and needs no master key
    #[arg(long, env = "CSRD_WORKERS", hide_env_values = true, value_name = "N")]
    workers: Option<usize>,
    /// How long requests and jobs in flight may take after SIGTERM
    #[arg(long, env = "CSRD_SHUTDOWN_TIMEOUT", hide_env_values = true, value_parser = duration, default_value = "30s")]
    shutdown_timeout: Duration,
    /// Let SANs begin with one `*.`
    #[arg(long, env = "CSRD_ALLOW_WILDCARD_SANS", hide_env_values = true)]
    allow_wildcard_sans: bool,
    /// A newer public suffix list than the embedded one
    #[arg(long, env = "CSRD_PUBLIC_SUFFIX_LIST", hide_env_values = true, value_name = "FILE")]
    public_suffix_list: Option<PathBuf>,
    #[command(flatten)]
    jwt: JwtArgs,
    #[command(flatten)]
    log: log::LogArgs,
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    log::start(&args.log);
    let listen = resolve(&args.listen).await?;
    let source = args.jwt.source()?;
    let suffixes = suffix_list(args.public_suffix_list.as_deref())?;
    // Before anything is made: a bad setting leaves nothing behind.
    let clock = Arc::new(SystemClock);
    let authenticator =
        |settings: &JwtSettings| Authenticator::new(settings, clock.clone()).map_err(|error| bad_setting(error.to_string()));
    let configured = source.map(|source| authenticator(&args.jwt.with(source))).transpose()?;
    if configured.is_none() {
        demo::check_listener(listen)?;
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| bad_setting(format!("--listen: {listen}: {error}")))?;
    let address = listener.local_addr()?;

    let database = args.database.open(true).await?;
    let (authenticator, welcome) = if let Some(configured) = configured {
        if args.jwt.lacks_audience() {
            tracing::warn!("--jwt-audience is not set: any token that these keys signed is accepted, an ID token too");
        }
        (configured, None)
    } else {
        let demo = demo::find_or_make(&args.database.data_dir, &*database.store).await?;
        let settings = args.jwt.with_demo(demo.secret);
        (authenticator(&settings)?, Some((settings, demo.is_new)))
    };
    let workers = start_workers(&args, &database).await?;
    let state = AppState {
        store: Arc::clone(&database.store),
        validator: Validator::new(SanPolicy { allow_wildcards: args.allow_wildcard_sans, suffixes }),
        authenticator,
        clock,
        worker_alive: workers.as_ref().map(Workers::alive),
    };
    tracing::info!("listening on http://{address}");
    if let Some((settings, is_new)) = welcome {
        demo::print_welcome(address, &settings, is_new)?;
    }
    let code = run(listener, state, workers, args.shutdown_timeout).await?;
    database.close().await;
    tracing::info!("stopped");
    Ok(code)
}

async fn run(listener: TcpListener, state: AppState, workers: Option<Workers>, patience: Duration) -> anyhow::Result<ExitCode> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new requests and jobs are taken");
    };
    let store = Arc::clone(&state.store);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        let _ = stopping.send(Instant::now() + patience);
    };
    let api = server::serve(listener, api::app(state), shutdown, patience);
    let jobs = async {
        let Ok(end) = stopped.await else { return true };
        let Some(workers) = workers else { return true };
        let finished = workers.drain(end.saturating_duration_since(Instant::now())).await;
        // What was cut off is given back for the next start.
        finished || store.release_jobs().await.is_ok()
    };
    let (answered, finished) = tokio::join!(api, jobs);
    if !answered {
        tracing::warn!("some requests were still unanswered");
    }
    if !finished {
        tracing::warn!("some jobs were neither finished nor given back: the next start finds them");
    }
    Ok(ExitCode::SUCCESS)
}

async fn start_workers(args: &ServeArgs, database: &Database) -> anyhow::Result<Option<Workers>> {
    let threads = args.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    if threads == 0 {
        return Ok(None);
    }
    let sealer = keys::sealer(&args.database.data_dir, &*database.store).await?;
    // This process holds the database's lock: whoever held jobs is gone.
    let released = database.store.release_jobs().await?;
    if released > 0 {
        tracing::info!(released, "jobs that an earlier process had begun are run again");
    }
    let config = WorkerConfig {
        threads,
        sealer: Arc::new(sealer),
        key_generator: Arc::new(AwsLc),
        clock: Arc::new(SystemClock),
        limits: Limits::default(),
        schedule: Schedule::default(),
    };
    Ok(Some(Workers::start(database, config).context("the key generation threads cannot be started")?))
}

async fn resolve(listen: &str) -> anyhow::Result<SocketAddr> {
    let resolved = tokio::net::lookup_host(listen).await.ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| bad_setting(format!("--listen: {listen} is not ADDRESS:PORT")))
}

fn suffix_list(path: Option<&std::path::Path>) -> anyhow::Result<SuffixList> {
    path.map_or_else(
        || Ok(SuffixList::embedded()),
        |path| SuffixList::load(path).map_err(|error| bad_setting(format!("--public-suffix-list: {} {error}", path.display()))),
    )
}
