//! `GET /metrics`: what the process counts and measures, and what is asked for at that moment.

mod requests;

use std::{sync::Arc, time::Duration};

use poem::{
    Response, handler,
    http::{HeaderMap, header},
    web::Data,
};
use shared::{
    metrics::{self, Build, Metrics},
    storage::{Database, Figures, Queue, Store},
};
use tokio::{sync::Mutex, time::Instant};
use worker::{
    Workers,
    keys::{
        fastest::RSA_LIBRARY,
        quality::{Check, FailedChecks},
    },
};

pub use self::requests::{Templates, observed};
use crate::{auth::Authenticator, http::accept};

/// How long the database has to answer: a scrape goes on without its figures.
const FIGURES_TIME: Duration = Duration::from_secs(3);
/// How long its figures are used again: several may scrape, and counting costs the database time.
const FRESH: Duration = Duration::from_secs(5);
/// Prometheus' own text format.
const TEXT: &str = "text/plain";
/// That of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// What is asked when somebody scrapes.
pub struct Sources {
    metrics: &'static Metrics,
    store: Arc<dyn Store>,
    queue: Queue,
    failed_checks: Option<Arc<FailedChecks>>,
    authenticator: Option<Arc<Authenticator>>,
    figures: Mutex<Option<(Instant, Option<Figures>)>>,
}

impl Sources {
    /// Of a process on this database whose key pool is to have so many keys. The metrics have begun.
    #[must_use]
    pub fn new(database: &Database, key_pool_size: u32) -> Self {
        let metrics = metrics::begin();
        let (version, rustc) = (env!("CARGO_PKG_VERSION"), env!("CSRD_RUSTC"));
        metrics.set_build(&Build { version, rustc, rsa: RSA_LIBRARY });
        metrics.set_key_pool_size(key_pool_size);
        let (store, queue) = (Arc::clone(&database.store), database.queue.clone());
        Self { metrics, store, queue, failed_checks: None, authenticator: None, figures: Mutex::default() }
    }

    /// With workers in this process, if it has any.
    #[must_use]
    pub fn with_workers(self, workers: Option<&Workers>) -> Self {
        Self { failed_checks: workers.map(Workers::failed_checks), ..self }
    }

    /// With what judges tokens.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Arc<Authenticator>) -> Self {
        Self { authenticator: Some(authenticator), ..self }
    }

    /// Asks for what is not counted when it happens.
    async fn refresh(&self) {
        self.metrics.set_figures(self.figures().await.as_ref());
        for pool in self.store.pools().into_iter().chain(self.queue.pool()) {
            self.metrics.set_connections(pool);
        }
        match &self.failed_checks {
            Some(checks) => checks.counts().for_each(|(check, count)| self.metrics.set_failed_checks(check.name(), count)),
            None => Check::ALL.iter().for_each(|check| self.metrics.set_failed_checks(check.name(), 0)),
        }
        self.metrics.set_jwks_age(self.authenticator.as_ref().and_then(|authenticator| authenticator.age_of_keys()));
    }

    /// The figures of the database, at most some seconds old. One scrape at a time asks; the others wait for its answer.
    async fn figures(&self) -> Option<Figures> {
        let mut last = self.figures.lock().await;
        if let Some((at, figures)) = &*last
            && at.elapsed() < FRESH
        {
            return *figures;
        }
        let figures = match tokio::time::timeout(FIGURES_TIME, self.store.figures()).await {
            Ok(Ok(figures)) => Some(figures),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the metrics lack the figures of the database");
                None
            }
            Err(_) => {
                tracing::debug!("the metrics lack the figures of the database: it does not answer");
                None
            }
        };
        *last = Some((Instant::now(), figures));
        figures
    }
}

/// All metrics, in the format that the client wants most.
#[handler]
pub async fn scrape(Data(sources): Data<&Arc<Sources>>, headers: &HeaderMap) -> Response {
    sources.refresh().await;
    let (content_type, text) = if accept::choose(headers, &[TEXT, OPEN_METRICS]) == OPEN_METRICS {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", sources.metrics.open_metrics())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", sources.metrics.prometheus_text())
    };
    Response::builder().header(header::CONTENT_TYPE, content_type).body(text)
}
