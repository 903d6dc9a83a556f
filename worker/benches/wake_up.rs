//! How long an accepted custom CSR waits for a worker: from the return of the commit to the start of its key generation.
//!
//!     cargo bench -p worker --bench wake_up
//!
//! On SQLite, and on PostgreSQL where `CSRD_TEST_POSTGRES_URL` names a server.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot go on ends, and prints its figures")]

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use shared::{
    clock::SystemClock,
    custom_csr::KeyType,
    outbound::{OutboundSettings, Reach},
    seal::{MasterKey, Sealer},
    testing::{TestDatabase, actor, new_custom_csr, now, zone},
};
use worker::{
    Heartbeat, Limits, Schedule, WorkerConfig, Workers,
    keys::{KeyGenerator, KeygenError, aws_lc::AwsLc, blocked::BlockedKeys, private_key::PrivateKey},
};

const ROUNDS: usize = 500;

/// Tells when it was called.
struct Stopwatch(mpsc::Sender<Instant>);

impl KeyGenerator for Stopwatch {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        let _ = self.0.send(Instant::now());
        AwsLc.generate(key_type)
    }
}

#[tokio::main]
async fn main() {
    let test = TestDatabase::new().await;
    let store = Arc::clone(&test.database.store);
    let sealer = Arc::new(Sealer::new(MasterKey::generate().unwrap(), Vec::new()));
    store.register_master_key(&sealer.current_id(), now()).await.unwrap();
    let scope = zone("z");
    store.grant_scope(&scope, None, Some(u32::MAX), &actor(), now()).await.unwrap();
    let (sender, started) = mpsc::channel();
    let config = WorkerConfig {
        threads: 1,
        sealer,
        key_generator: Arc::new(Stopwatch(sender)),
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
    let workers = Workers::start(&test.database, config).unwrap();
    let mut waits = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await.unwrap();
        let committed = Instant::now();
        let begun = tokio::task::block_in_place(|| started.recv()).unwrap();
        waits.push(begun.saturating_duration_since(committed));
        // Not in step with ticks and heartbeats.
        tokio::time::sleep(Duration::from_millis(u64::try_from(round % 23).unwrap())).await;
    }
    workers.drain(Duration::from_secs(10)).await;
    waits.sort();
    let at = |percent: usize| waits[(ROUNDS * percent / 100).min(ROUNDS - 1)];
    let database = if test.is_postgres() { "PostgreSQL" } else { "SQLite" };
    println!("{database}: from commit to start, {ROUNDS} rounds: p50 {:.1?}, p99 {:.1?}, max {:.1?}", at(50), at(99), at(100));
}
