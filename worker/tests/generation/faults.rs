//! A database that errs: no error of it costs a row, whatever its class, whether the call took effect or not.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use shared::{
    custom_csr::{KeyType, Status},
    storage::StoreError,
    testing::faulty::{Fault, FaultyStore, When},
};
use tokio::time::Instant;
use worker::{Limits, Schedule, Trouble, keys::aws_lc::AwsLc};

use crate::support::World;

/// One attempt, and one start that is lost: whatever counted against a row would end it as failed.
fn strict() -> Limits {
    Limits { retry_delays: Vec::new(), starts: 1, database_patience: Duration::from_millis(100), ..Limits::default() }
}

fn often() -> Schedule {
    Schedule { sweep_interval: Duration::from_millis(200), ..Schedule::default() }
}

async fn with_faults(faults: Vec<Fault>, key_pool_size: u32) -> (World, Arc<FaultyStore>) {
    let mut world = World { key_pool_size, ..World::new().await };
    let store = Arc::new(FaultyStore::new(Arc::clone(&world.test.database.store), faults));
    world.test.database.store = Arc::<FaultyStore>::clone(&store);
    (world, store)
}

async fn every_row_becomes_active(fault: Fault) {
    let what = format!("{fault:?}");
    let method = fault.method;
    let (world, store) = with_faults(vec![fault], 1).await;
    let workers = world.workers_with(AwsLc, strict(), often());
    // The pool has something to give, so that its methods are called.
    let end = Instant::now() + Duration::from_secs(30);
    while world.test.number("SELECT COUNT(*) FROM pool_keys").await == 0 {
        assert!(Instant::now() < end, "{what}: no key in the pool");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut ids = Vec::new();
    for key_type in [KeyType::Rsa2048, KeyType::P256v1, KeyType::P256v1] {
        ids.push(world.accept(key_type).await);
    }
    for id in ids {
        let csr = world.ended(id).await;
        assert_eq!((csr.status, csr.error), (Status::Active, None), "{what}");
    }
    assert_eq!(world.test.number("SELECT COUNT(*) FROM custom_csrs WHERE attempts > 0").await, 0, "{what}: an attempt was counted");
    assert!(store.calls_of(method) > 0, "{what}: never called");
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_of_any_class_in_any_call_of_a_worker_costs_a_row() {
    let methods = [
        "start_generations",
        "complete_generation",
        "lease_pool_key",
        "complete_pooled",
        "count_pool_keys",
        "add_pool_key",
        "sweep",
        "purge",
    ];
    let error = || "on purpose".to_owned();
    for method in methods {
        let mut runs = Vec::new();
        for error in
            [StoreError::Unavailable(error()), StoreError::Ambiguous(error()), StoreError::Internal(error()), StoreError::Corrupt(error())]
        {
            for when in [When::Before, When::After] {
                // This error says that nothing happened.
                if matches!(error, StoreError::Unavailable(_)) && when == When::After {
                    continue;
                }
                runs.push(every_row_becomes_active(Fault { method, from: 0, calls: 1, when, error: error.clone() }));
            }
        }
        join_all(runs).await;
    }
}

#[tokio::test]
async fn rows_that_share_a_job_do_not_wait_for_the_sweep_if_they_cannot_be_started_at_once() {
    let error = StoreError::Unavailable("a lock did not come".into());
    let fault = Fault { method: "start_generations", from: 0, calls: 1, when: When::Before, error };
    let (world, _) = with_faults(vec![fault], 0).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.accept(KeyType::P256v1).await);
    }
    world.test.execute(&format!("UPDATE custom_csrs SET job_id = (SELECT job_id FROM custom_csrs WHERE id = '{}')", ids[0])).await;
    world.test.execute("DELETE FROM {jobs} WHERE id NOT IN (SELECT job_id FROM custom_csrs)").await;
    let never = Schedule { sweep_interval: Duration::from_hours(1), ..Schedule::default() };
    let workers = world.workers_with(AwsLc, strict(), never);
    for id in ids {
        assert_eq!(world.ended(id).await.status, Status::Active);
    }
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_row_whose_result_is_refused_many_times_waits_longer_each_time_and_is_shown_as_trouble() {
    let error = StoreError::Internal("permission denied".into());
    let fault = Fault { method: "complete_generation", from: 0, calls: 2, when: When::Before, error };
    let (world, store) = with_faults(vec![fault], 0).await;
    let workers = world.workers_with(AwsLc, strict(), often());
    let mut trouble = workers.trouble();
    let id = world.accept(KeyType::P256v1).await;
    let shown =
        |trouble: &Option<Trouble>| trouble.as_ref().and_then(Trouble::current).is_some_and(|text| text.contains("permission denied"));
    tokio::time::timeout(Duration::from_secs(30), trouble.wait_for(shown)).await.expect("shown").expect("open");
    assert_eq!(world.ended(id).await.status, Status::Active);
    assert_eq!(store.calls_of("complete_generation"), 3);
    assert_eq!(store.calls_of("defer_generation"), 2, "the sweep did not wake it in between");
    tokio::time::timeout(Duration::from_secs(30), trouble.wait_for(Option::is_none)).await.expect("over").expect("open");
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_key_pool_that_always_errs_keeps_no_row_from_being_made() {
    let error = StoreError::Internal("permission denied for table pool_keys".into());
    let always = |method| Fault { method, from: 0, calls: u32::MAX, when: When::Before, error: error.clone() };
    let methods = ["lease_pool_key", "complete_pooled", "discard_pool_key", "add_pool_key", "count_pool_keys"];
    let (world, store) = with_faults(methods.map(always).to_vec(), 3).await;
    let workers = world.workers_with(AwsLc, strict(), often());
    for _ in 0..3 {
        assert_eq!(world.ended(world.accept(KeyType::Rsa2048).await).await.status, Status::Active);
    }
    assert_eq!(store.calls_of("lease_pool_key"), 3, "each row asked once");
    assert!(workers.trouble().borrow().is_none(), "the pool is no reason to be not ready");
    workers.drain(Duration::from_secs(10)).await;
}
