//! Whether the process lives, and whether it is ready to serve.

use std::{sync::Arc, time::Duration};

use poem::{Response, handler, web::Data};
use serde_json::{Value, json};
use shared::{
    clock::Clock,
    codes::ErrorCode,
    issue::Issue,
    storage::{Store, StoreError, Vitals},
};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use worker::{Trouble, Workers};

use crate::{auth::Authenticator, http::error::ApiError};

/// How long the database has to answer.
const PING_TIME: Duration = Duration::from_secs(3);
/// How long a finding is used again: probes may come in quick succession.
const FRESH: Duration = Duration::from_secs(1);
/// A custom CSR that is pending for longer shows that no worker makes keys.
const LONG_PENDING_SECS: u64 = 120;
/// The time between two warnings of the same kind.
const WARN_EVERY: Duration = Duration::from_mins(1);
/// Clocks that differ by more are worth a warning.
const SKEW_TO_WARN: Duration = Duration::from_secs(5);
/// Clocks that differ by more make times meaningless: the process is not ready.
const SKEW_TO_REFUSE: Duration = Duration::from_mins(1);

/// What readiness depends on.
pub struct Health {
    /// The storage.
    pub store: Arc<dyn Store>,
    /// This process' time.
    pub clock: Arc<dyn Clock>,
    /// Whether a worker takes jobs, or `None` if this process has no workers.
    pub worker_alive: Option<watch::Receiver<bool>>,
    /// Why keys cannot be stored, if so, or `None` if this process has no workers.
    pub trouble: Option<watch::Receiver<Option<Trouble>>>,
    /// Whether tokens can be judged, or `None` if this process judges none.
    pub authenticator: Option<Arc<Authenticator>>,
    /// What is wrong with the master keys, or `None` if this process has no workers.
    pub master_keys: Option<watch::Receiver<MasterKeyState>>,
    /// A worker that was seen within this time counts.
    pub seen_within: Duration,
    /// What the last probe found, and when.
    pub last: Mutex<Option<(Instant, Found)>>,
    /// When the last warning of a degraded service was logged.
    pub warned: Mutex<Option<Instant>>,
}

/// What is wrong with the master keys of a process that seals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MasterKeyState {
    /// Why it cannot seal, if so.
    pub not_ready: Option<String>,
    /// Which records it could not open, if there are any.
    pub degraded: Option<String>,
}

/// What a probe of the database found: why it is not ready, or how the work goes.
pub type Found = Result<Vitals, String>;

impl Health {
    /// Of this store, whose workers run elsewhere.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, seen_within: Duration) -> Self {
        let (last, warned) = (Mutex::default(), Mutex::default());
        Self { store, clock, worker_alive: None, trouble: None, authenticator: None, master_keys: None, seen_within, last, warned }
    }

    /// With workers in this process, if it has any.
    #[must_use]
    pub fn with_workers(self, workers: Option<&Workers>) -> Self {
        Self { worker_alive: workers.map(Workers::alive), trouble: workers.map(Workers::trouble), ..self }
    }

    /// With what judges tokens.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Arc<Authenticator>) -> Self {
        Self { authenticator: Some(authenticator), ..self }
    }

    /// With master keys in this process, if it has any.
    #[must_use]
    pub fn with_master_keys(self, master_keys: Option<watch::Receiver<MasterKeyState>>) -> Self {
        Self { master_keys, ..self }
    }

    fn master_key_state(&self) -> MasterKeyState {
        self.master_keys.as_ref().map(|state| state.borrow().clone()).unwrap_or_default()
    }

    /// Checks the database and the clocks at this interval, and logs what is wrong. Never ends.
    pub async fn watch(&self, interval: Duration) {
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut skewed = false;
        loop {
            tick.tick().await;
            let found = self.found().await;
            let skew = found.as_ref().ok().map(|vitals| self.skew(vitals)).filter(|skew| skew.unsigned_abs() > SKEW_TO_WARN.as_secs());
            // Once each time that the clocks drift apart, and repeatedly while the process refuses to work.
            if let Some(skew) = skew.filter(|skew| !skewed || skew.unsigned_abs() > SKEW_TO_REFUSE.as_secs()) {
                tracing::warn!("{}: set the clock of this machine or of the database's", skew_words(skew));
            }
            skewed = skew.is_some();
            if let Ok(vitals) = found {
                self.warn_if_degraded(&vitals).await;
            }
        }
    }

    /// By how many seconds this process' clock is ahead of the database's.
    fn skew(&self, vitals: &Vitals) -> i64 {
        self.clock.now().secs().saturating_sub(vitals.now.secs())
    }

    /// What the database says, at most a moment old. One probe at a time asks; the others wait for its answer.
    async fn found(&self) -> Found {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < FRESH
        {
            return found.clone();
        }
        let found = self.ask().await;
        *last = Some((Instant::now(), found.clone()));
        found
    }

    async fn ask(&self) -> Found {
        if let Some(moved) = self.store.moved() {
            tracing::error!("not ready: {moved}");
            return Err(moved);
        }
        let asked = async {
            self.store.ping().await?;
            self.store.vitals(self.seen_within).await
        };
        match tokio::time::timeout(PING_TIME, asked).await {
            Ok(Ok(vitals)) => Ok(vitals),
            Ok(Err(StoreError::Internal(error) | StoreError::Corrupt(error))) => {
                tracing::warn!(error, "not ready: migrations or rights");
                Err("the database lacks migrations, or this role lacks rights".to_owned())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready: database");
                Err("the database cannot be reached".to_owned())
            }
            Err(_) => Err("the database does not answer".to_owned()),
        }
    }

    /// Why the service does not do all its work although it answers.
    fn degraded(&self, vitals: &Vitals) -> Option<String> {
        if vitals.oldest_pending_secs.is_some_and(|secs| secs > LONG_PENDING_SECS) {
            return Some(format!(
                "{} custom CSRs are pending, the oldest for {} s",
                vitals.pending,
                vitals.oldest_pending_secs.unwrap_or(0)
            ));
        }
        // A process with workers of its own is not ready without them.
        let no_worker =
            (self.worker_alive.is_none() && vitals.workers == 0).then(|| "no worker is alive: custom CSRs stay pending".to_owned());
        no_worker.or_else(|| self.master_key_state().degraded)
    }

    async fn warn_if_degraded(&self, vitals: &Vitals) {
        let Some(reason) = self.degraded(vitals) else { return };
        let mut warned = self.warned.lock().await;
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!("degraded: {reason}");
        }
    }

    async fn readiness(&self) -> Result<Value, String> {
        let vitals = self.found().await?;
        let skew = self.skew(&vitals);
        if skew.unsigned_abs() > SKEW_TO_REFUSE.as_secs() {
            return Err(skew_words(skew));
        }
        if self.worker_alive.as_ref().is_some_and(|alive| !*alive.borrow()) {
            return Err("the worker is not running".to_owned());
        }
        let trouble = self.trouble.as_ref().and_then(|trouble| trouble.borrow().as_ref()?.current().map(str::to_owned));
        if let Some(trouble) = trouble {
            return Err(format!("keys cannot be stored: {trouble}"));
        }
        if let Some(reason) = self.authenticator.as_ref().and_then(|authenticator| authenticator.waits_for_keys()) {
            return Err(reason);
        }
        if let Some(reason) = self.master_key_state().not_ready {
            return Err(reason);
        }
        self.warn_if_degraded(&vitals).await;
        let problem = self.degraded(&vitals);
        let mut result = json!({
            "status": if problem.is_some() { "degraded" } else { "ready" },
            "database": "ok",
            "workers": vitals.workers,
            "pending": vitals.pending,
            "oldest_pending_secs": vitals.oldest_pending_secs.unwrap_or(0),
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(problem) = problem {
            result["problem"] = problem.into();
        }
        Ok(result)
    }
}

fn skew_words(skew: i64) -> String {
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    format!("this machine's clock is {} s {direction} the database's", skew.unsigned_abs())
}

/// The process answers.
#[handler]
pub fn live() -> Response {
    ok(&json!({ "status": "live" }))
}

/// The database answers and is migrated, the clocks agree, and a worker takes jobs if this process has workers.
#[handler]
pub async fn ready(Data(health): Data<&Arc<Health>>) -> Result<Response, ApiError> {
    let readiness = health.readiness().await;
    readiness.map(|result| ok(&result)).map_err(|part| Issue::new(ErrorCode::NotReady).because(part).into())
}

fn ok(result: &Value) -> Response {
    let body = json!({ "success": true, "errors": [], "messages": [], "result": result });
    Response::builder().content_type("application/json").body(body.to_string())
}
