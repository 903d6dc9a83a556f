//! Generations, sweeps, purges and master keys.

use std::time::Duration;

use super::{MASTER_KEY, accept, database, generated, granted};
use crate::{
    clock::Timestamp,
    error::StoreError,
    model::Status,
    storage::Deletion,
    testing::{actor, now},
};

#[tokio::test]
async fn a_generation_completes_once_and_the_second_result_is_discarded() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap());
    assert!(!store.complete_generation(id, &generated(2), now()).await.unwrap());
    assert!(!store.fail_generation(id, "late", now()).await.unwrap());
    assert!(store.start_generation(id).await.unwrap().is_none());
    let csr = store.find_custom_csr(&scope, id).await.unwrap().unwrap();
    assert_eq!((csr.status, csr.error), (Status::Active, None));
    assert_eq!(store.sample_sealed(MASTER_KEY).await.unwrap().unwrap().spki_sha256, [1; 32]);
}

#[tokio::test]
async fn a_private_key_cannot_belong_to_two_custom_csrs() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 2).await;
    let (first, second) = (accept(&*store, &scope).await, accept(&*store, &scope).await);
    assert!(store.complete_generation(first, &generated(1), now()).await.unwrap());
    assert!(matches!(store.complete_generation(second, &generated(1), now()).await, Err(StoreError::Internal(_))));
    assert_eq!(store.find_custom_csr(&scope, second).await.unwrap().unwrap().status, Status::Pending);
}

#[tokio::test]
async fn a_deleted_custom_csr_is_never_brought_back_by_a_late_result() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.start_generation(id).await.unwrap().is_some());
    assert_eq!(store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap(), Deletion::Deleted);
    assert!(!store.complete_generation(id, &generated(1), now()).await.unwrap());
    assert!(!store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    assert_eq!(store.find_custom_csr(&scope, id).await.unwrap(), None);
    assert_eq!(store.sweep(now()).await.unwrap().requeued, 0);
}

#[tokio::test]
async fn only_one_of_two_workers_counts_the_attempt_that_both_saw() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    let started = store.start_generation(id).await.unwrap().unwrap();
    assert_eq!((started.attempts, started.starts), (0, 1));
    assert_eq!(store.start_generation(id).await.unwrap().unwrap().starts, 2);
    store.forget_start(id).await.unwrap();
    assert!(store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    assert!(!store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    let again = store.start_generation(id).await.unwrap().unwrap();
    assert_eq!((again.attempts, again.starts), (1, 1), "a counted attempt is a result: starts count anew");
    assert!(store.fail_generation(id, "no luck", now()).await.unwrap());
    let csr = store.find_custom_csr(&scope, id).await.unwrap().unwrap();
    assert_eq!((csr.status, csr.error.as_deref()), (Status::Failed, Some("no luck")));
}

#[tokio::test]
async fn the_sweep_gives_a_new_job_to_rows_whose_job_is_gone_and_to_no_others() {
    let (test, store) = database().await;
    let scope = granted(&*store, 700).await;
    for _ in 0..600 {
        accept(&*store, &scope).await;
    }
    assert_eq!(store.sweep(now()).await.unwrap().requeued, 0);
    test.execute("DELETE FROM {jobs}").await;
    let done = accept(&*store, &scope).await;
    test.execute("UPDATE {jobs} SET status = 'Killed'").await;
    let mut wake = store.signals().enqueued();
    wake.mark_unchanged();
    assert_eq!(store.sweep(now()).await.unwrap().requeued, 601);
    assert!(wake.has_changed().unwrap(), "a sweep wakes the workers");
    assert_eq!(store.sweep(now()).await.unwrap().requeued, 0);
    assert!(store.find_custom_csr(&scope, done).await.unwrap().is_some());
}

#[tokio::test]
async fn the_purge_deletes_finished_jobs_in_batches_and_leaves_live_ones() {
    let (test, store) = database().await;
    let scope = granted(&*store, 2).await;
    accept(&*store, &scope).await;
    test.execute(
        "INSERT INTO {jobs} (job, id, job_type, status, attempts, max_attempts, run_at, priority, metadata) \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
         SELECT job, CAST(i AS TEXT), job_type, status, attempts, max_attempts, run_at, priority, metadata FROM {jobs}, n",
    )
    .await;
    let (long_ago, last_seen) = if test.is_postgres() { ("to_timestamp(1000)", "to_timestamp(1)") } else { ("1000", "1") };
    test.execute(&format!("UPDATE {{jobs}} SET status = 'Done', done_at = {long_ago}")).await;
    accept(&*store, &scope).await;
    test.execute(&format!("INSERT INTO {{workers}} (id, worker_type, storage_name, last_seen) VALUES ('gone', 'q', 's', {last_seen})"))
        .await;
    let (ended_before, seen_before) = (Timestamp::from_micros(2_000_000_000), Timestamp::from_micros(500_000));
    let purged = store.purge(ended_before, seen_before, now()).await.unwrap();
    assert_eq!((purged.jobs, purged.workers), (2_501, 0), "a worker that was seen later stays");
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs}").await, 1);
    assert_eq!(store.purge(ended_before, ended_before, now()).await.unwrap().workers, 1);
}

#[tokio::test]
async fn an_unused_master_key_is_forgotten_and_a_used_one_is_kept() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap());
    store.register_master_key("unused", now()).await.unwrap();
    store.register_master_key("newest", now()).await.unwrap();
    let keys = store.list_master_keys().await.unwrap();
    let keys: Vec<_> = keys.iter().map(|key| (key.id.as_str(), key.current, key.in_use)).collect();
    assert_eq!(keys, [(MASTER_KEY, false, true), ("newest", true, false)]);
}
