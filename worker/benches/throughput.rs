//! How many custom CSRs a second go from accepted to active, without HTTP: callers accept, the workers do the rest.
//!
//!     cargo bench -p worker --bench throughput [-- p256v1|rsa2048 [COUNT [CALLERS]]]
//!
//! On SQLite, and on PostgreSQL where `CSRD_TEST_POSTGRES_URL` names a server. Durable, as in production.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot go on ends, and prints its figures")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use shared::{
    clock::SystemClock,
    custom_csr::KeyType,
    outbound::{OutboundSettings, Reach},
    seal::{MasterKey, Sealer},
    storage::Acceptance,
    testing::{TestDatabase, actor, new_custom_csr, now, zone},
};
use worker::{
    Heartbeat, Limits, Schedule, WorkerConfig, Workers,
    keys::{aws_lc::AwsLc, blocked::BlockedKeys},
};

const ZONES: usize = 8;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let key_type = arguments.next().map_or(KeyType::P256v1, |word| KeyType::parse(&word).unwrap());
    let count: usize = arguments.next().map_or(10_000, |count| count.parse().unwrap());
    let callers: usize = arguments.next().map_or(32, |callers| callers.parse().unwrap());

    let test = TestDatabase::new().await;
    let store = Arc::clone(&test.database.store);
    let sealer = Arc::new(Sealer::new(MasterKey::generate().unwrap(), Vec::new()));
    store.register_master_key(&sealer.current_id(), now()).await.unwrap();
    for number in 0..ZONES {
        store.grant_scope(&zone(&format!("z{number}")), None, Some(u32::MAX), &actor(), now()).await.unwrap();
    }
    let config = WorkerConfig {
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        sealer,
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
    let workers = Workers::start(&test.database, config).unwrap();
    workers.alive().wait_for(|alive| *alive).await.unwrap();

    let accepted = Arc::new(Mutex::new(HashMap::with_capacity(count)));
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (store, accepted) = (Arc::clone(&store), Arc::clone(&accepted));
        tasks.spawn(async move {
            let scope = zone(&format!("z{}", caller % ZONES));
            for _ in 0..count / callers {
                let new = new_custom_csr(&scope, key_type);
                accepted.lock().unwrap().insert(new.id, Instant::now());
                loop {
                    match store.accept_custom_csr(&new, &actor(), now()).await {
                        Ok(Acceptance::Accepted(_)) => break,
                        Ok(other) => unreachable!("{other:?}"),
                        Err(error) => println!("again: {error}"),
                    }
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let accepting = began.elapsed();
    // What is still pending is looked at now and then, so that looking costs nothing.
    while test.number("SELECT COUNT(*) FROM custom_csrs WHERE status = 'pending'").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let done = began.elapsed();
    let total = accepted.lock().unwrap().len();
    let rate = |time: Duration| f64::from(u32::try_from(total).unwrap()) / time.as_secs_f64();
    let failed = test.number("SELECT COUNT(*) FROM custom_csrs WHERE status = 'failed'").await;
    workers.drain(Duration::from_secs(10)).await;
    let database = if test.is_postgres() { "PostgreSQL" } else { "SQLite" };
    let key_type = key_type.as_str();
    println!(
        "{database}, {key_type}, {callers} callers: {total} accepted at {:.0}/s, active at {:.0}/s, {failed} failed",
        rate(accepting),
        rate(done)
    );
}
