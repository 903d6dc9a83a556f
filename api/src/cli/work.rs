//! `csrd worker`: makes keys for API processes elsewhere.

use std::{process::ExitCode, sync::Arc};

use api::{health, server};
use clap::Args;
use shared::storage::Location;
use tokio::net::TcpListener;

use super::{
    bad_setting,
    database::DatabaseArgs,
    keys::{self, IfMissing},
    log,
    process::{ProcessArgs, drain, resolve, stop_signal},
};

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
    log: log::LogArgs,
}

/// One thread a core.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Works until SIGTERM or SIGINT.
pub async fn work(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    let _last_lines = log::start(&args.log)?;
    args.process.check()?;
    if matches!(args.database.location()?, Location::Sqlite(_)) {
        return Err(bad_setting("--database-url: csrd worker needs postgres://…: on SQLite the workers are part of csrd serve"));
    }
    let listener = match &args.health_listen {
        Some(address) => {
            let address = resolve("--health-listen", address).await?;
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|error| bad_setting(format!("--health-listen: {address}: {error}")))?)
        }
        None => None,
    };
    let database = args.database.open_for(args.process.access(), false).await?;
    let sealer = keys::sealer(&args.database.data_dir, &*database.store, IfMissing::Refuse).await?;
    let threads = args.concurrency.map_or_else(default_threads, usize::from);
    let workers = args.process.start_workers(&database, sealer, threads)?;
    tracing::info!(threads, "working");

    let patience = args.process.shutdown_timeout;
    let (stop, health) = (stop_signal()?, health::Health { store: Arc::clone(&database.store), worker_alive: Some(workers.alive()) });
    match listener {
        Some(listener) => {
            log::listening(listener.local_addr()?);
            server::serve(listener, api::health_app(health), stop, patience).await;
        }
        None => stop.await,
    }
    drain(workers, &*database.store, patience).await;
    database.close().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
