//! Metrics: what a process counts and measures, for Prometheus.
//!
//! They are one table for the whole process, as the log is. Nothing is counted until [`begin`]: before, each function here costs one load.
//! No tenant's ID is a label, and no name of a label value comes from outside.

mod labels;
mod process;
mod text;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use self::labels::{Build, GenerationOutcome, KeySource, WebhookOutcome};
use self::labels::{
    Check, Code, Connections, Generated, Generation, KeyType as KeyTypeLabel, Operation, Request, Requests, State, StoreFailure, Webhook,
    Within,
};
use crate::{
    clock::Timestamp,
    codes::ErrorCode,
    custom_csr::KeyType,
    storage::{ABANDONED, Figures, PoolUse, StoreError},
};

/// Upper bounds of what takes a computer's time, in seconds.
const SHORT: [f64; 15] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Upper bounds of what a client waits for, in seconds.
const REQUEST: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of what a queue adds to, in seconds.
const LONG: [f64; 15] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

static METRICS: OnceLock<Metrics> = OnceLock::new();

/// Begins to count. Later calls return the same.
pub fn begin() -> &'static Metrics {
    METRICS.get_or_init(Metrics::new)
}

/// The metrics, or `None` if nothing is counted.
#[must_use]
pub fn metrics() -> Option<&'static Metrics> {
    METRICS.get()
}

/// A token was not accepted.
pub fn auth_failed(code: ErrorCode) {
    if let Some(metrics) = metrics().filter(|_| code != ErrorCode::NotReady) {
        metrics.auth_failures.get_or_create(&Code { code: code.number() }).inc();
    }
}

/// A custom CSR was accepted.
pub fn custom_csr_accepted(key_type: KeyType) {
    if let Some(metrics) = metrics() {
        metrics.accepted.get_or_create(&key_type.into()).inc();
    }
}

/// A generation ended in this way.
pub fn generation_ended(key_type: KeyType, outcome: GenerationOutcome) {
    if let Some(metrics) = metrics() {
        metrics.generations.get_or_create(&Generation { key_type: key_type.as_str(), outcome: outcome.as_str() }).inc();
    }
}

/// A custom CSR that was accepted at `accepted` became active at `active`.
pub fn became_active(key_type: KeyType, accepted: Timestamp, active: Timestamp) {
    generation_ended(key_type, GenerationOutcome::Active);
    if let Some(metrics) = metrics() {
        let micros = active.micros().saturating_sub(accepted.micros()).max(0).unsigned_abs();
        metrics.time_to_active.get_or_create(&key_type.into()).observe(Duration::from_micros(micros).as_secs_f64());
    }
}

/// Makes a key and its CSR, and measures how long that takes if it succeeds.
///
/// # Errors
///
/// Those of `make`.
pub fn timed_generation<T, E>(key_type: KeyType, source: KeySource, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let Some(metrics) = metrics() else { return make() };
    let began = std::time::Instant::now();
    let done = make()?;
    let labels = Generated { key_type: key_type.as_str(), source: source.as_str() };
    metrics.generation_duration.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    Ok(done)
}

/// A delivery to a webhook ended in this way.
pub fn webhook_delivered(outcome: WebhookOutcome) {
    if let Some(metrics) = metrics() {
        metrics.webhook_deliveries.get_or_create(&Webhook { outcome: outcome.as_str() }).inc();
    }
}

/// Of a metric that may be left out.
type NoLabels = [(&'static str, &'static str); 0];
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Counters<L> = Family<L, Counter>;
type Gauges<L> = Family<L, Gauge>;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: Counters<Requests>,
    request_duration: Histograms<Request>,
    in_flight: Gauge,
    errors: Counters<Code>,
    auth_failures: Counters<Code>,
    accepted: Counters<KeyTypeLabel>,
    generations: Counters<Generation>,
    generation_duration: Histograms<Generated>,
    time_to_active: Histograms<KeyTypeLabel>,
    queue_depth: Gauges<State>,
    oldest_pending: Gauges<NoLabels>,
    key_pool_keys: Gauges<NoLabels>,
    key_pool_size: Gauge,
    failed_checks: Counters<Check>,
    store_duration: Histograms<Operation>,
    store_errors: Counters<StoreFailure>,
    connections: Gauges<Connections>,
    expiring: Gauges<Within>,
    webhook_deliveries: Counters<Webhook>,
    jwks_age: Family<NoLabels, Gauge<f64, AtomicU64>>,
    build: Gauges<Build>,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::default();
        let mut table = Table(&mut registry);
        let metrics = Self {
            requests: table.add("csrd_http_requests", "Requests that were answered"),
            request_duration: table
                .histograms("csrd_http_request_duration_seconds", "Time from a request's header to its answer", || Histogram::new(REQUEST)),
            in_flight: table.add("csrd_http_requests_in_flight", "Requests that are being answered"),
            errors: table.add("csrd_http_errors", "Errors in answers, by their code"),
            auth_failures: table.add("csrd_auth_failures", "Requests whose token was not accepted"),
            accepted: table.add("csrd_custom_csrs_accepted", "Custom CSRs that were accepted"),
            generations: table.add("csrd_generations", "Generations that ended here"),
            generation_duration: table.histograms(
                "csrd_generation_duration_seconds",
                "Time on a key thread for one key (unless it is from the key pool), its checks, its CSR and its sealing",
                || Histogram::new(SHORT),
            ),
            time_to_active: table.histograms(
                "csrd_time_to_active_seconds",
                "Time from the acceptance of a custom CSR until it is active",
                || Histogram::new(LONG),
            ),
            queue_depth: table.add("csrd_queue_depth", "Custom CSRs that are pending, in the whole database"),
            oldest_pending: table.add("csrd_queue_oldest_pending_seconds", "How long the oldest of them has been pending; 0 without any"),
            key_pool_keys: table.add("csrd_key_pool_keys", "Keys in the key pool, in the whole database"),
            key_pool_size: table.add("csrd_key_pool_size", "How many there are to be, by the setting of this process"),
            failed_checks: table.add("csrd_key_checks_failed", "Keys that failed a check and were not used"),
            store_duration: table
                .histograms("csrd_store_duration_seconds", "Time of an operation of the storage", || Histogram::new(SHORT)),
            store_errors: table.add("csrd_store_errors", "Operations of the storage that ended in an error"),
            connections: table.add("csrd_db_connections", "Connections of this process to the database"),
            expiring: table.add("csrd_certificates_expiring", "Certificates that expire within this time and have not yet"),
            webhook_deliveries: table.add("csrd_webhook_deliveries", "Attempts to deliver an event to a webhook"),
            jwks_age: table.add("csrd_jwks_age_seconds", "Time since the JWK set of --jwt-jwks-url was last fetched"),
            build: table.add("csrd_build_info", "What this csrd was built from; always 1"),
            registry: Registry::default(),
        };
        registry.register_collector(Box::new(process::Process::new()));
        let metrics = Self { registry, ..metrics };
        metrics.fill_in();
        metrics
    }

    /// Begins at 0 what can be foreseen: a rate sees the first increment of a series only if there was a value before.
    fn fill_in(&self) {
        for code in ErrorCode::ALL {
            let labels = Code { code: code.number() };
            drop(self.errors.get_or_create(&labels));
            if code.status() == 401 || *code == ErrorCode::AuthorizationMissing {
                drop(self.auth_failures.get_or_create(&labels));
            }
        }
        for key_type in KeyType::ALL {
            drop(self.accepted.get_or_create(&(*key_type).into()));
            for outcome in GenerationOutcome::ALL {
                drop(self.generations.get_or_create(&Generation { key_type: key_type.as_str(), outcome: outcome.as_str() }));
            }
        }
        for outcome in WebhookOutcome::ALL {
            drop(self.webhook_deliveries.get_or_create(&Webhook { outcome: outcome.as_str() }));
        }
    }

    /// A request began.
    #[must_use]
    pub fn request_began(&'static self) -> InFlight {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }

    /// A request for a route, whose template this is, was answered with this status and these codes of errors.
    pub fn request_answered(&self, route: Arc<str>, method: &'static str, status: u16, took: Duration, codes: impl Iterator<Item = u16>) {
        for code in codes {
            self.errors.get_or_create(&Code { code }).inc();
        }
        let request = Request { route, method };
        self.request_duration.get_or_create(&request).observe(took.as_secs_f64());
        self.requests.get_or_create(&Requests { route: request.route, method, status }).inc();
    }

    /// An operation of the storage ended, if with an error with one of this kind.
    pub fn store_called(&self, operation: &'static str, took: Duration, error: Option<&'static str>) {
        let labels = Operation { operation };
        let is_known = self.store_duration.get(&labels).is_some();
        if !is_known {
            for kind in StoreError::KINDS.into_iter().chain([ABANDONED]) {
                drop(self.store_errors.get_or_create(&StoreFailure { operation, kind }));
            }
        }
        self.store_duration.get_or_create(&labels).observe(took.as_secs_f64());
        if let Some(kind) = error {
            self.store_errors.get_or_create(&StoreFailure { operation, kind }).inc();
        }
    }

    /// What was built.
    pub fn set_build(&self, build: &Build) {
        self.build.get_or_create(build).set(1);
    }

    /// How many keys the key pool is to have.
    pub fn set_key_pool_size(&self, size: u32) {
        self.key_pool_size.set(i64::from(size));
    }

    /// How many keys failed this check since the process began.
    pub fn set_failed_checks(&self, check: &'static str, count: u64) {
        self.failed_checks.get_or_create(&Check { check }).inner().store(count, Ordering::Relaxed);
    }

    /// The figures of the whole database, or `None` if it does not tell them now: then there are none, rather than old ones.
    pub fn set_figures(&self, figures: Option<&Figures>) {
        let Some(figures) = figures else {
            self.queue_depth.clear();
            self.oldest_pending.clear();
            self.key_pool_keys.clear();
            self.expiring.clear();
            return;
        };
        for (state, count) in [("pending", figures.pending), ("running", figures.running)] {
            self.queue_depth.get_or_create(&State { state }).set(gauge(count));
        }
        self.oldest_pending.get_or_create(&[]).set(gauge(figures.oldest_pending_secs.unwrap_or_default()));
        self.key_pool_keys.get_or_create(&[]).set(gauge(figures.key_pool_keys));
        for (within, count) in ["1d", "7d", "14d", "30d"].into_iter().zip(figures.expiring) {
            self.expiring.get_or_create(&Within { within }).set(gauge(count));
        }
    }

    /// The connections of a pool, by the use that is made of them.
    pub fn set_connections(&self, PoolUse { pool, idle, busy }: PoolUse) {
        for (state, count) in [("idle", idle), ("busy", busy)] {
            self.connections.get_or_create(&Connections { pool, state }).set(gauge(count));
        }
    }

    /// How old the JWK set is, if one was fetched.
    pub fn set_jwks_age(&self, age: Option<Duration>) {
        match age {
            Some(age) => {
                self.jwks_age.get_or_create(&[]).set(age.as_secs_f64());
            }
            None => self.jwks_age.clear(),
        }
    }

    /// All of them, in Prometheus' text format.
    #[must_use]
    pub fn prometheus_text(&self) -> String {
        text::prometheus(&self.open_metrics())
    }

    /// All of them, in the text format of OpenMetrics 1.0.
    #[must_use]
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics could not be written");
        }
        text
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A request that is being answered, or was taken back.
pub struct InFlight(&'static Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Registers metrics.
struct Table<'a>(&'a mut Registry);

impl Table<'_> {
    fn add<M: prometheus_client::registry::Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn histograms<L>(&mut self, name: &str, help: &str, new: fn() -> Histogram) -> Histograms<L>
    where
        Histograms<L>: prometheus_client::registry::Metric + Clone,
        L: Clone + std::hash::Hash + Eq,
    {
        let family = Family::new_with_constructor(new);
        self.0.register(name, help, family.clone());
        family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_counted_before_the_metrics_begin_and_what_is_foreseen_begins_at_0() {
        generation_ended(KeyType::P256v1, GenerationOutcome::Active);
        let metrics = begin();
        assert!(std::ptr::eq(metrics, begin()));
        let text = metrics.prometheus_text();
        assert!(text.contains("csrd_generations_total{key_type=\"p256v1\",outcome=\"active\"} 0\n"), "{text}");
        generation_ended(KeyType::P256v1, GenerationOutcome::Active);
        assert!(metrics.prometheus_text().contains("csrd_generations_total{key_type=\"p256v1\",outcome=\"active\"} 1\n"));
    }

    #[test]
    fn a_request_counts_once_with_its_template_and_its_codes() {
        let metrics = begin();
        let in_flight = metrics.request_began();
        assert!(metrics.open_metrics().contains("csrd_http_requests_in_flight 1\n"));
        drop(in_flight);
        metrics.request_answered("/zones/{zone_id}".into(), "GET", 404, Duration::from_millis(2), [1_419].into_iter());
        let text = metrics.open_metrics();
        for line in [
            "csrd_http_requests_in_flight 0\n",
            "csrd_http_requests_total{route=\"/zones/{zone_id}\",method=\"GET\",status=\"404\"} 1\n",
            "csrd_http_request_duration_seconds_bucket{le=\"0.0025\",route=\"/zones/{zone_id}\",method=\"GET\"} 1\n",
            "csrd_http_errors_total{code=\"1419\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn figures_that_are_not_known_are_left_out() {
        let metrics = begin();
        let figures = Figures { pending: 3, running: 1, oldest_pending_secs: Some(7), key_pool_keys: 5, expiring: [1, 2, 3, 4] };
        metrics.set_figures(Some(&figures));
        let text = metrics.open_metrics();
        for line in [
            "csrd_queue_depth{state=\"pending\"} 3\n",
            "csrd_queue_depth{state=\"running\"} 1\n",
            "csrd_queue_oldest_pending_seconds 7\n",
            "csrd_key_pool_keys 5\n",
            "csrd_certificates_expiring{within=\"14d\"} 3\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        metrics.set_figures(None);
        assert!(!metrics.open_metrics().contains("csrd_queue_depth"));
    }
}
