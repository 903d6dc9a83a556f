//! `csrd worker`: makes keys for API processes elsewhere.

use std::{process::ExitCode, sync::Arc, time::Duration};

use api::{
    http::server::{self, Options},
    metrics::Sources,
};
use clap::Args;
use shared::{clock::SystemClock, storage::Location};
use tokio::net::TcpListener;

use super::{
    bad_setting,
    database::DatabaseArgs,
    log,
    master_keys::{self, Following, IfMissing},
    metrics::{self, MetricsArgs},
    outbound::OutboundArgs,
    process::{End, ProcessArgs, drain, exit_code, resolve, stop_or_fault, stop_signal, unless_stopped},
    reload::Hangups,
    signals,
    traces::TraceArgs,
};

/// How long a health probe may take to be answered at the end.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Settings of `csrd worker`.
#[derive(Args)]
pub struct WorkerArgs {
    /// Key generation threads, by default one a core
    #[arg(long, env = "CSRD_CONCURRENCY", hide_env_values = true, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
    /// Where to answer /health/live and /health/ready; without it nowhere
    #[arg(long, env = "CSRD_HEALTH_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    health_listen: Option<String>,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    outbound: OutboundArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    log: log::LogArgs,
}

/// One thread a core.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Works until SIGTERM or SIGINT.
pub async fn work(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    // Only the master keys are loaded anew here, and they read the signal themselves.
    drop(Hangups::take()?);
    let mut stop = Box::pin(stop_signal()?);
    signals::release();
    let _last_lines = log::start(&args.log);
    args.process.check()?;
    let blocked_keys = args.process.blocked_keys()?;
    let outbound = args.process.outbound(&args.outbound)?;
    let traces = args.traces.begin(&args.outbound)?;
    if matches!(args.database.location()?, Location::Sqlite(_)) {
        return Err(bad_setting("--database-url: csrd worker needs postgres://…: on SQLite the workers are part of csrd serve"));
    }
    let listener = match &args.health_listen {
        Some(address) => {
            let address = unless_stopped(&mut stop, resolve("--health-listen", address)).await;
            let Some(address) = address else { return Ok(ExitCode::SUCCESS) };
            let address = address?;
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|error| bad_setting(format!("--health-listen: {address}: {error}")))?)
        }
        None => None,
    };
    let Some(metrics) = unless_stopped(&mut stop, Box::pin(args.metrics.listen())).await else { return Ok(ExitCode::SUCCESS) };
    let metrics = metrics?;
    let Some(database) = unless_stopped(&mut stop, args.database.open_for(args.process.access(), false)).await else {
        return Ok(ExitCode::SUCCESS);
    };
    let database = database?;
    let database = if metrics.is_some() || traces.is_some() { metrics::measure(database) } else { database };
    let data_dir = &args.database.data_dir;
    let sealer = Arc::new(master_keys::sealer(data_dir, &*database.store, IfMissing::Refuse).await?);
    // Processes without a master key seal the secrets of webhooks with it.
    worker::webhook_key(&*database.store, &sealer, &SystemClock).await?;
    let threads = args.concurrency.map_or_else(default_threads, usize::from);
    let workers = args.process.start_workers(&database, &sealer, threads, blocked_keys, outbound)?;
    let following = args.process.follow_master_keys(&database, data_dir, sealer, &workers)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %args.database.data_dir.display(),
        database = args.database.place()?,
        listener = listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(tracing::field::display),
        key_threads = threads,
        key_pool_size = args.process.key_pool_size,
        "working"
    );

    let end = End::new(args.process.shutdown_timeout);
    let health = args.process.health(&database).with_workers(Some(&workers)).with_master_keys(Some(following.state()));
    let health = Arc::new(health);
    let watched = args.process.watch(&health);
    let scraped = metrics.map(|metrics| metrics.serve(Sources::new(&database, args.process.key_pool_size).with_workers(Some(&workers))));
    let mut is_sound = true;
    let stop = async {
        is_sound = stop_or_fault(stop, &*database.store).await;
        end.begin();
    };
    match listener {
        Some(listener) => {
            log::listening(&format!("http://{}", listener.local_addr()?));
            // Probes are short: what is left of the time is the jobs'.
            server::serve(listener, Options::default(), api::health_app(health), stop, PROBE_TIME.min(end.patience)).await;
        }
        None => stop.await,
    }
    let finished = drain(workers, &*database.store, &end).await;
    watched.abort();
    if let Some(scraped) = scraped {
        scraped.abort();
    }
    Following::end(Some(following)).await;
    end.flush(traces);
    end.close(database).await;
    Ok(exit_code(finished && is_sound))
}
