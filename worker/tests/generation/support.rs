//! What the tests have in common.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use shared::{
    clock::{Clock, SystemClock, Timestamp},
    custom_csr::{CustomCsr, KeyType, Status},
    ids::{CustomCsrId, Scope},
    outbound::{OutboundSettings, Reach},
    seal::{MasterKey, Sealer},
    storage::{Acceptance, Store, StoreError},
    testing::{TestDatabase, actor, new_custom_csr, now, zone},
};
use tokio::time::Instant;
use worker::{
    Heartbeat, Limits, Schedule, WorkerConfig, Workers,
    keys::{KeyGenerator, KeygenError, aws_lc::AwsLc, blocked::BlockedKeys, private_key::PrivateKey},
};

/// A database with a granted zone and a registered master key.
pub struct World {
    pub test: TestDatabase,
    pub sealer: Arc<Sealer>,
    pub scope: Scope,
    /// Of the workers that it starts.
    pub key_pool_size: u32,
    /// Which keys they do not use.
    pub blocked_keys: BlockedKeys,
}

impl World {
    pub async fn new() -> Self {
        let test = TestDatabase::new().await;
        let sealer = Arc::new(Sealer::new(MasterKey::generate().unwrap(), Vec::new()));
        let scope = zone("z");
        let store = Arc::clone(&test.database.store);
        until_available(async || store.register_master_key(&sealer.current_id(), now()).await).await;
        until_available(async || store.grant_scope(&scope, None, Some(1_000), &actor(), now()).await).await;
        Self { test, sealer, scope, key_pool_size: 0, blocked_keys: BlockedKeys::default() }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.test.database.store
    }

    pub fn workers(&self, key_generator: impl KeyGenerator, limits: Limits) -> Workers {
        self.workers_with(key_generator, limits, Schedule::default())
    }

    pub fn workers_with(&self, key_generator: impl KeyGenerator, limits: Limits, schedule: Schedule) -> Workers {
        let config = WorkerConfig {
            threads: 2,
            sealer: Arc::clone(&self.sealer),
            key_generator: Arc::new(key_generator),
            clock: Arc::new(SystemClock),
            limits,
            schedule,
            heartbeat: Heartbeat::default(),
            key_pool_size: self.key_pool_size,
            blocked_keys: self.blocked_keys.clone(),
            outbound: OutboundSettings { ca_pem: None, reach: Reach::Anywhere },
            public_url: None,
            ari_directories: Vec::new(),
        };
        Workers::start(&self.test.database, config).unwrap()
    }

    pub async fn accept(&self, key_type: KeyType) -> CustomCsrId {
        let new = new_custom_csr(&self.scope, key_type);
        match until_available(async || self.store().accept_custom_csr(&new, &actor(), now()).await).await {
            Acceptance::Accepted(csrs) => csrs[0].id,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub async fn ended(&self, id: CustomCsrId) -> CustomCsr {
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            let csr = until_available(async || self.store().find_custom_csr(&self.scope, id).await).await.unwrap();
            if csr.status != Status::Pending {
                return csr;
            }
            assert!(Instant::now() < end, "still pending after a minute");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Repeats a call that gets no connection in time, as on a busy machine: nothing has happened then.
async fn until_available<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        match call().await {
            Err(StoreError::Unavailable(error)) => assert!(Instant::now() < end, "the database is away for a minute: {error}"),
            result => return result.unwrap(),
        }
    }
}

/// Makes keys by what a closure says of the number of the call, from 0.
pub struct Scripted<F>(AtomicU32, F);

impl<F: Fn(u32) -> Option<KeygenError> + Send + Sync + 'static> KeyGenerator for Scripted<F> {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        match self.1(self.0.fetch_add(1, Ordering::SeqCst)) {
            Some(error) => Err(error),
            None => AwsLc.generate(key_type),
        }
    }
}

pub fn scripted<F: Fn(u32) -> Option<KeygenError> + Send + Sync + 'static>(script: F) -> Scripted<F> {
    Scripted(AtomicU32::new(0), script)
}

/// Keeps a copy of every key that it makes.
pub struct Remembering(pub Arc<Mutex<Vec<Vec<u8>>>>);

impl KeyGenerator for Remembering {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        let key = AwsLc.generate(key_type)?;
        self.0.lock().unwrap().push(key.to_private_key_info().unwrap().to_vec());
        Ok(key)
    }
}

/// Gives keys that were made before, and says when.
pub struct Given {
    pub keys: Mutex<Vec<PrivateKey>>,
    pub at: Arc<Mutex<Vec<Timestamp>>>,
}

impl KeyGenerator for Given {
    fn generate(&self, _: KeyType) -> Result<PrivateKey, KeygenError> {
        self.at.lock().unwrap().push(SystemClock.now());
        self.keys.lock().unwrap().pop().ok_or(KeygenError)
    }
}
