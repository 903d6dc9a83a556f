//! Metrics, on an address of their own.

use std::{net::SocketAddr, sync::Arc};

use api::{
    http::server::{self, Options},
    metrics::Sources,
};
use clap::Args;
use shared::{
    metrics,
    storage::{Database, measured},
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{bad_setting, log, process::resolve};

/// Where metrics are served.
#[derive(Args)]
pub struct MetricsArgs {
    /// Where to answer /metrics, for Prometheus and without authentication; without it nowhere
    #[arg(long, env = "CSRD_METRICS_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
}

impl MetricsArgs {
    /// Takes the address, and begins to count. None where nobody is to scrape: then nothing is counted.
    pub async fn listen(&self) -> anyhow::Result<Option<MetricsListener>> {
        let Some(address) = &self.metrics_listen else { return Ok(None) };
        let address = resolve("--metrics-listen", address).await?;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| bad_setting(format!("--metrics-listen: {address}: {error}")))?;
        metrics::begin();
        Ok(Some(MetricsListener { address: listener.local_addr()?, listener }))
    }
}

/// Where metrics are going to be served.
pub struct MetricsListener {
    listener: TcpListener,
    address: SocketAddr,
}

/// Measures and traces the operations of this database.
pub fn measure(database: Database) -> Database {
    Database { store: measured(database.store, &database.queue), ..database }
}

impl MetricsListener {
    /// Serves them until the task is aborted.
    pub fn serve(self, sources: Sources) -> JoinHandle<bool> {
        log::metrics_at(&format!("http://{}/metrics", self.address));
        let app = api::metrics_app(Arc::new(sources));
        tokio::spawn(server::serve(self.listener, Options::default(), app, std::future::pending(), std::time::Duration::ZERO))
    }
}
