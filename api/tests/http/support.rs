//! A server for each test, and a client that checks the envelope of every answer.

use std::{sync::Arc, time::Duration};

use api::{
    auth::{
        Authenticator, JwtSettings, KeySource,
        signing::{Secret, TokenRequest, issue},
    },
    health::Health,
    http::{client::TrustedProxies, cors::Origins, server},
    state::{AppState, Waiting},
};
use reqwest::{Method, Response, header::HeaderMap};
use serde_json::{Value, json};
use shared::{
    bodies::create::Validator,
    clock::{Clock, SystemClock},
    ids::{Scope, TenantId},
    names::{public_suffix::SuffixList, san::SanPolicy},
    outbound::{Gate, OutboundSettings, Reach},
    seal::{MasterKey, Sealer},
    storage::Store,
    testing::{TestDatabase, account, actor, now, zone},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
};
use worker::{
    Heartbeat, Limits, Schedule, WorkerConfig, Workers,
    keys::{aws_lc::AwsLc, blocked::BlockedKeys},
};

pub const PREFIXES: [&str; 2] = ["/api/v4", "/client/v4"];
/// Where tenants ask for more here.
pub const CONTACT_URL: &str = "https://platform.example/help";
pub const NO_ID: &str = "01a20ddb-a60a-7ec4-a678-dddaaf48e323";

/// A running server with zone `z` (of account `a`) and account `a`, each with a quota.
pub struct Api {
    pub base: String,
    pub store: Arc<dyn Store>,
    pub test: TestDatabase,
    settings: JwtSettings,
    pub client: reqwest::Client,
    workers: Option<Workers>,
    stop: Option<oneshot::Sender<()>>,
    stopping: watch::Sender<bool>,
    served: Option<JoinHandle<bool>>,
}

/// An answer whose envelope was checked.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no envelope: {text:?}"));
        let answer = Self { status, headers, body };
        answer.check_envelope();
        answer
    }

    fn check_envelope(&self) {
        let members: Vec<&str> = self.body.as_object().unwrap().keys().map(String::as_str).collect();
        let success = self.body["success"].as_bool().unwrap();
        assert_eq!(success, self.status < 400, "{self:?}");
        assert_eq!(self.body["errors"].as_array().unwrap().is_empty(), success, "{self:?}");
        assert!(self.body["messages"].is_array());
        assert_eq!(members[..4], ["success", "errors", "messages", "result"]);
        assert!(success || self.body["result"].is_null());
        assert!(self.headers.contains_key("x-request-id"), "{self:?}");
        assert_eq!(self.headers["content-type"].to_str().unwrap().split(';').next(), Some("application/json"));
        if self.status == 401 {
            let challenge = self.headers["www-authenticate"].to_str().unwrap();
            assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{challenge}");
        }
    }

    /// Codes and pointers of the errors.
    pub fn errors(&self) -> Vec<(u64, Option<&str>)> {
        let errors = self.body["errors"].as_array().unwrap();
        errors.iter().map(|error| (error["code"].as_u64().unwrap(), error["source"]["pointer"].as_str())).collect()
    }

    /// HTTP status and first code.
    pub fn code(&self) -> (u16, u64) {
        (self.status, self.body["errors"][0]["code"].as_u64().unwrap_or_default())
    }

    pub fn result(&self) -> &Value {
        &self.body["result"]
    }
}

impl Api {
    /// Pending custom CSRs that a zone or an account may have here.
    pub const MAX_PENDING: u32 = 50;

    /// Without workers: what is accepted stays pending.
    pub async fn start() -> Self {
        Self::with_workers(false).await
    }

    /// Without workers, and with other settings.
    pub async fn with(change: impl FnOnce(&mut AppState)) -> Self {
        Self::set_up(false, change).await
    }

    pub async fn with_workers(has_workers: bool) -> Self {
        Self::set_up(has_workers, |_| {}).await
    }

    async fn set_up(has_workers: bool, change: impl FnOnce(&mut AppState)) -> Self {
        let test = TestDatabase::new().await;
        let store = Arc::clone(&test.database.store);
        store.grant_scope(&zone("z"), Some(account("a").id()), Some(1_000), &actor(), now()).await.unwrap();
        store.grant_scope(&account("a"), None, Some(1_000), &actor(), now()).await.unwrap();
        let sealer = Arc::new(Sealer::new(MasterKey::generate().unwrap(), Vec::new()));
        store.register_master_key(&sealer.current_id(), now()).await.unwrap();
        let workers = has_workers.then(|| {
            let config = WorkerConfig {
                threads: 2,
                sealer: Arc::clone(&sealer),
                key_generator: Arc::new(AwsLc),
                clock: Arc::new(SystemClock),
                limits: Limits::default(),
                schedule: Schedule::default(),
                heartbeat: Heartbeat::default(),
                key_pool_size: 0,
                blocked_keys: BlockedKeys::default(),
                outbound: OutboundSettings { ca_pem: None, reach: Reach::Anywhere },
                public_url: None,
                ari_directories: Vec::new(),
            };
            Workers::start(&test.database, config).unwrap()
        });
        let with_sealer = |state: &mut AppState| {
            state.sealer = Some(sealer);
            change(state);
        };
        Self::serve(test, store, workers, with_sealer).await
    }

    async fn serve(test: TestDatabase, store: Arc<dyn Store>, workers: Option<Workers>, change: impl FnOnce(&mut AppState)) -> Self {
        let settings = JwtSettings {
            source: KeySource::Demo(Secret(vec![7; 32].into())),
            issuer: None,
            audience: None,
            zones_claim: "zones".into(),
            accounts_claim: "accounts".into(),
            scope_claim: "scope".into(),
            leeway: Duration::ZERO,
        };
        let stopping = watch::Sender::new(false);
        let health = Health::new(Arc::clone(&store), Arc::new(SystemClock), Duration::from_secs(30));
        let health = Arc::new(health.with_workers(workers.as_ref()));
        let mut state = AppState {
            store: Arc::clone(&store),
            validator: Validator::new(SanPolicy { allow_wildcards: false, suffixes: SuffixList::embedded() }),
            trust_anchors: None,
            authenticator: Arc::new(Authenticator::new(&settings, Arc::new(SystemClock)).unwrap()),
            clock: Arc::new(SystemClock),
            health,
            max_pending: Self::MAX_PENDING,
            create_wait_secs: 0,
            delete_grace: Duration::ZERO,
            waiting: Waiting::new(16),
            body_bytes: Arc::new(Semaphore::new(1 << 20)),
            rate_limits: Arc::default(),
            trusted_proxies: TrustedProxies::default(),
            handovers: api::handovers::settings::Settings::default(),
            contact_url: Some(CONTACT_URL.into()),
            cors_origins: Origins::default(),
            gate: Gate::new(Reach::Public),
            sealer: None,
            stopping: stopping.subscribe(),
        };
        change(&mut state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let served = tokio::spawn(server::serve(listener, server::Options::default(), api::app(state), shutdown, Duration::from_secs(10)));
        let client = reqwest::Client::new();
        Self { base, store, test, settings, client, workers, stop: Some(stop), stopping, served: Some(served) }
    }

    /// Stops as SIGTERM does; whether everything in flight was answered.
    pub async fn stop(&mut self) -> bool {
        self.stopping.send_replace(true);
        drop(self.stop.take());
        self.served.take().unwrap().await.unwrap()
    }

    pub async fn drain_workers(&mut self) {
        self.workers.take().unwrap().drain(Duration::from_secs(10)).await;
    }

    pub fn token(&self, zones: &[&str], accounts: &[&str], scope: Option<&str>, ttl: Duration) -> String {
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let request =
            TokenRequest { zones: owned(zones), accounts: owned(accounts), scope: scope.map(str::to_owned), subject: "me".into(), ttl };
        issue(&self.settings, &request, SystemClock.now()).unwrap()
    }

    /// A token for everything.
    pub fn all(&self) -> String {
        self.token(&["*"], &["*"], None, Duration::from_mins(10))
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// A request with a token for everything.
    pub async fn send(&self, method: Method, path: &str) -> Answer {
        Answer::of(self.request(method, path).bearer_auth(self.all()).send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).bearer_auth(self.all()).json(body);
        Answer::of(request.send().await.unwrap()).await
    }

    pub async fn post_raw(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, path).bearer_auth(self.all()).header("content-type", content_type).body(body);
        Answer::of(request.send().await.unwrap()).await
    }

    /// The ID of a fresh custom CSR of zone `z`.
    pub async fn create(&self) -> String {
        let answer = self.post("/api/v4/zones/z/custom_csrs", &valid()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.result()["id"].as_str().unwrap().to_owned()
    }

    /// Grants a zone.
    pub async fn grant(&self, id: &str, quota: Option<u32>) {
        self.store.grant_scope(&Scope::Zone(TenantId::parse(id).unwrap()), None, quota, &actor(), now()).await.unwrap();
    }
}

/// A body that is accepted.
pub fn valid() -> Value {
    json!({
        "country": "US", "state": "California", "locality": "San Francisco", "organization": "Foo", "common_name": "www.foo.com",
        "sans": ["www.foo.com", "foo.com"], "key_type": "p256v1",
    })
}

/// The accepted body with one member replaced.
pub fn with(name: &str, value: Value) -> Value {
    let mut body = valid();
    body[name] = value;
    body
}
