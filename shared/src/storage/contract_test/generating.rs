//! Generations, sweeps, purges and master keys.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{MASTER_KEY, accept, accept_new, database, generated, granted, start};
use crate::{
    clock::Timestamp,
    custom_csr::{KeyType, Status},
    ids::{CustomCsrId, Scope},
    storage::{CompletionOutcome, Deletion, Generation, Registration, Store},
    testing::{TestDatabase, actor, new_custom_csr, now},
};

#[tokio::test]
async fn a_generation_completes_once_and_the_second_result_is_discarded() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap().is_completed());
    assert!(!store.complete_generation(id, &generated(2), now()).await.unwrap().is_completed());
    assert!(!store.fail_generation(id, "late", now()).await.unwrap());
    assert!(start(&*store, id).await.is_none());
    let csr = store.find_custom_csr(&scope, id).await.unwrap().unwrap();
    assert_eq!((csr.status, csr.error), (Status::Active, None));
    assert_eq!(store.list_sealed(None, 1).await.unwrap()[0].spki_sha256, [1; 32]);
}

#[tokio::test]
async fn a_private_key_cannot_belong_to_two_custom_csrs() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 2).await;
    let (first, second) = (accept(&*store, &scope).await, accept(&*store, &scope).await);
    assert!(store.complete_generation(first, &generated(1), now()).await.unwrap().is_completed());
    assert_eq!(store.complete_generation(second, &generated(1), now()).await.unwrap(), CompletionOutcome::KeyInUse);
    assert_eq!(store.find_custom_csr(&scope, second).await.unwrap().unwrap().status, Status::Pending);
}

#[tokio::test]
async fn a_deleted_custom_csr_is_never_brought_back_by_a_late_result() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(start(&*store, id).await.is_some());
    assert_eq!(store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap(), Deletion::Deleted);
    assert!(!store.complete_generation(id, &generated(1), now()).await.unwrap().is_completed());
    assert!(!store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    assert_eq!(store.find_custom_csr(&scope, id).await.unwrap(), None);
    assert_eq!(store.sweep().await.unwrap().requeued, 0);
}

#[tokio::test]
async fn only_one_of_two_workers_counts_the_attempt_that_both_saw() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    let started = start(&*store, id).await.unwrap();
    assert_eq!((started.attempts, started.starts), (0, 1));
    assert_eq!(start(&*store, id).await.unwrap().starts, 2);
    store.forget_start(id).await.unwrap();
    assert!(store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    assert!(!store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    let again = start(&*store, id).await.unwrap();
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
    assert_eq!(store.sweep().await.unwrap().requeued, 0);
    test.execute("DELETE FROM {jobs}").await;
    let done = accept(&*store, &scope).await;
    test.execute("UPDATE {jobs} SET status = 'Killed'").await;
    let mut wake = store.signals().enqueued();
    wake.mark_unchanged();
    assert_eq!(store.sweep().await.unwrap().requeued, 601);
    assert!(wake.has_changed().unwrap(), "a sweep wakes the workers");
    assert_eq!(store.sweep().await.unwrap().requeued, 0);
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
async fn the_first_master_key_stays_the_current_one_whether_it_is_in_use_or_not() {
    let (_test, store) = database().await;
    let keys = || async {
        let keys = store.list_master_keys().await.unwrap();
        keys.into_iter().map(|key| (key.id, key.current, key.in_use)).collect::<Vec<_>>()
    };
    assert_eq!(store.register_master_key("another", now()).await.unwrap(), Registration::Other(MASTER_KEY.into()));
    assert_eq!(store.register_master_key(MASTER_KEY, now()).await.unwrap(), Registration::Current);
    assert_eq!(keys().await, [(MASTER_KEY.into(), true, false)]);
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap().is_completed());
    assert_eq!(store.register_master_key("another", now()).await.unwrap(), Registration::Other(MASTER_KEY.into()));
    assert_eq!(keys().await, [(MASTER_KEY.into(), true, true)]);
}

#[tokio::test]
async fn of_processes_that_register_their_master_keys_at_once_one_wins_and_the_others_learn_which() {
    for _ in 0..10 {
        let test = TestDatabase::new().await;
        let mut tasks = JoinSet::new();
        for number in 0..8 {
            let store = Arc::clone(&test.database.store);
            tasks.spawn(async move {
                let id = format!("key {number}");
                let registration = store.register_master_key(&id, now()).await.unwrap();
                (id, registration)
            });
        }
        let all = tasks.join_all().await;
        let winners: Vec<_> = all.iter().filter(|(_, registration)| *registration == Registration::Current).map(|(id, _)| id).collect();
        let [winner] = winners.as_slice() else { panic!("{winners:?}") };
        for (id, registration) in &all {
            assert!(id == *winner || *registration == Registration::Other((*winner).clone()), "{registration:?}");
        }
        assert_eq!(store_keys(&test).await, 1);
    }
}

async fn store_keys(test: &TestDatabase) -> i64 {
    test.number("SELECT COUNT(*) FROM master_keys").await
}

#[tokio::test]
async fn a_start_that_is_deferred_does_not_count_and_has_a_job_that_waits() {
    let (test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    for _ in 0..3 {
        assert_eq!(start(&*store, id).await.unwrap().starts, 1);
        assert!(store.defer_generation(id, Duration::from_mins(10)).await.unwrap());
    }
    let live = "SELECT COUNT(*) FROM {jobs} WHERE status = 'Pending' AND id = (SELECT job_id FROM custom_csrs)";
    assert_eq!(test.number(live).await, 1);
    assert_eq!(store.sweep().await.unwrap().requeued, 0, "a job that waits is a live one");
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap().is_completed());
    assert!(!store.defer_generation(id, Duration::ZERO).await.unwrap());
}

#[tokio::test]
async fn sealed_records_are_listed_in_batches_by_id_and_rows_without_one_are_left_out() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 4).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        let id = accept(&*store, &scope).await;
        if number < 3 {
            assert!(store.complete_generation(id, &generated(number), now()).await.unwrap().is_completed());
            ids.push(id);
        }
    }
    ids.sort_unstable();
    let first = store.list_sealed(None, 2).await.unwrap();
    let rest = store.list_sealed(first.last().map(|row| row.id), 2).await.unwrap();
    assert_eq!(first.iter().chain(&rest).map(|row| row.id).collect::<Vec<_>>(), ids);
    assert!(first.iter().all(|row| row.master_key_id == MASTER_KEY));
}

/// As a worker does: the row of a job, and others.
async fn start_with_others(store: &dyn Store, id: CustomCsrId, most: fn(KeyType) -> u32) -> Vec<Generation> {
    store.start_generations(id, most).await.unwrap()
}

#[tokio::test]
async fn one_job_takes_what_else_waits_for_a_key_of_its_type_and_stands_for_it() {
    let (test, store) = database().await;
    let scope = granted(&*store, 20).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(accept(&*store, &scope).await);
    }
    let rsa = accept_new(&*store, &new_custom_csr(&scope, KeyType::Rsa2048)).await;
    let other_rsa = accept_new(&*store, &new_custom_csr(&scope, KeyType::Rsa2048)).await;
    let later = accept(&*store, &scope).await;
    assert!(store.retry_generation(later, 0, Duration::from_hours(1), now()).await.unwrap());
    let begun: Vec<_> = start_with_others(&*store, ids[0], |_| 4).await.iter().map(|started| started.custom_csr.id).collect();
    assert_eq!(begun.len(), 4, "no more than asked for");
    assert_eq!(begun[0], ids[0], "the job's own row first");
    // Of nine jobs and that of the first attempt of the one that waits, three went to the one that took them.
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs}").await, 7);
    assert_eq!(store.sweep().await.unwrap().requeued, 0, "while that job lives, nothing is lost");
    let rest = start_with_others(&*store, *ids.iter().find(|id| !begun.contains(id)).unwrap(), |_| 65).await;
    assert_eq!(rest.len(), 2, "neither what is begun, nor what is to wait, nor RSA");
    let both: Vec<_> = start_with_others(&*store, rsa, |_| 65).await.iter().map(|started| started.custom_csr.id).collect();
    assert_eq!(both, [rsa, other_rsa]);

    // The worker dies. Whoever runs the job again gets its row alone, and the two that were begun with it and are not done get jobs again.
    assert!(store.complete_generation(begun[1], &generated(1), now()).await.unwrap().is_completed());
    let again = start_with_others(&*store, ids[0], |_| 65).await;
    assert_eq!(again.iter().map(|started| (started.custom_csr.id, started.starts)).collect::<Vec<_>>(), [(ids[0], 2)]);
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs}").await, 7 - 2 + 2, "less the two that were taken");
    let alone = start_with_others(&*store, begun[2], |_| 65).await;
    assert_eq!(alone.iter().map(|started| started.starts).collect::<Vec<_>>(), [2]);
    // And where the jobs themselves are gone, the sweep finds all rows.
    test.execute("DELETE FROM {jobs}").await;
    assert_eq!(store.sweep().await.unwrap().requeued, 8);
}

#[tokio::test]
async fn workers_that_take_at_once_never_take_the_same_row() {
    let (test, store) = database().await;
    let scope = granted(&*store, 200).await;
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(accept(&*store, &scope).await);
    }
    // The jobs of these are with their workers.
    let workers: Vec<_> = ids.iter().copied().step_by(20).collect();
    for id in &workers {
        test.execute(&format!("UPDATE {{jobs}} SET status = 'Running' WHERE id = (SELECT job_id FROM custom_csrs WHERE id = '{id}')"))
            .await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for id in workers {
        let store = Arc::clone(&store);
        tasks.spawn(async move { start_with_others(&*store, id, |_| 31).await });
    }
    let started: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(started.len(), started.iter().map(|started| started.custom_csr.id).collect::<HashSet<_>>().len());
    assert!(started.iter().all(|started| started.starts == 1));
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs} WHERE status = 'Pending'").await, 200 - i64::try_from(started.len()).unwrap());
}

#[tokio::test]
async fn of_completions_in_one_commit_one_that_is_refused_spoils_no_other() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 40).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let id = accept(&*store, &scope).await;
        let store = Arc::clone(&store);
        // Every fourth brings the key of the first.
        let key = if number % 4 == 0 { 0 } else { number };
        tasks.spawn(async move { (key, store.complete_generation(id, &generated(key), now()).await) });
    }
    let outcomes = tasks.join_all().await;
    let completed = |shared: bool| {
        outcomes.iter().filter(|(key, outcome)| (*key == 0) == shared && matches!(outcome, Ok(CompletionOutcome::Completed))).count()
    };
    assert_eq!((completed(true), completed(false)), (1, 30));
    let in_use = outcomes.iter().filter(|(key, outcome)| *key == 0 && matches!(outcome, Ok(CompletionOutcome::KeyInUse))).count();
    assert_eq!(in_use, 9, "{outcomes:?}");
}

/// Accepts so many together, as under load: they wait for a writer from outside.
async fn accept_together(test: &TestDatabase, store: &Arc<dyn Store>, scope: &Scope, count: usize, key_type: KeyType) {
    let locked = test.lock_writers().await;
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let (store, new) = (Arc::clone(store), new_custom_csr(scope, key_type));
        tasks.spawn(async move { accept_new(&*store, &new).await });
        tokio::task::yield_now().await;
    }
    drop(locked);
    tasks.join_all().await;
}

const JOBS: &str = "SELECT COUNT(*) FROM {jobs} WHERE status = 'Pending'";

#[tokio::test]
async fn keys_that_are_made_in_no_time_share_a_job_where_they_are_accepted_together() {
    let (test, store) = database().await;
    let scope = granted(&*store, 200).await;
    accept_together(&test, &store, &scope, 30, KeyType::Rsa2048).await;
    assert_eq!(test.number(JOBS).await, 30, "whichever process is free makes one");
    accept_together(&test, &store, &scope, 30, KeyType::P256v1).await;
    let shared = test.number(JOBS).await - 30;
    assert!((1..15).contains(&shared), "{shared}");
    let jobless = "SELECT COUNT(*) FROM custom_csrs WHERE job_id NOT IN (SELECT id FROM {jobs})";
    assert_eq!(test.number(jobless).await, 0);
}

/// Four custom CSRs of which three share the job of the first.
async fn sharing(test: &TestDatabase, store: &dyn Store, scope: &Scope) -> Vec<CustomCsrId> {
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(accept(store, scope).await);
    }
    let (first, last) = (ids[0], ids[3]);
    test.execute(&format!("UPDATE custom_csrs SET job_id = (SELECT job_id FROM custom_csrs WHERE id = '{first}') WHERE id <> '{last}'"))
        .await;
    test.execute("DELETE FROM {jobs} WHERE id NOT IN (SELECT job_id FROM custom_csrs)").await;
    assert_eq!(test.number(JOBS).await, 2);
    ids
}

async fn ids_of_started(store: &dyn Store, id: CustomCsrId, most: fn(KeyType) -> u32) -> Vec<CustomCsrId> {
    let mut ids: Vec<_> = start_with_others(store, id, most).await.iter().map(|started| started.custom_csr.id).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_shared_job_starts_all_its_rows_once_before_those_of_other_jobs() {
    let (test, store) = database().await;
    let scope = granted(&*store, 20).await;
    let ids = sharing(&test, &*store, &scope).await;
    assert_eq!(ids_of_started(&*store, ids[0], |_| 3).await, ids[..3]);
    assert_eq!(test.number(JOBS).await, 2, "that of the fourth is untouched");
    assert_eq!(ids_of_started(&*store, ids[3], |_| 64).await, ids[3..]);
    // The first kills its worker: it stays alone, and the others have jobs again.
    assert_eq!(ids_of_started(&*store, ids[0], |_| 64).await, ids[..1]);
    assert_eq!(test.number(JOBS).await, 4);
}

#[tokio::test]
async fn a_shared_job_that_another_takes_brings_all_its_rows() {
    let (test, store) = database().await;
    let scope = granted(&*store, 20).await;
    let ids = sharing(&test, &*store, &scope).await;
    assert_eq!(ids_of_started(&*store, ids[3], |_| 64).await, ids);
    assert_eq!(test.number(JOBS).await, 1);
    assert_eq!(store.sweep().await.unwrap().requeued, 0, "that job stands for them");
}

#[tokio::test]
async fn rows_that_share_a_job_outlive_its_own_row() {
    for is_running in [false, true] {
        let (test, store) = database().await;
        let scope = granted(&*store, 20).await;
        let ids = sharing(&test, &*store, &scope).await;
        if is_running {
            let status = "UPDATE {jobs} SET status = 'Running' WHERE id = (SELECT job_id FROM custom_csrs WHERE id = 'ID')";
            test.execute(&status.replace("ID", &ids[0].to_string())).await;
        }
        assert_eq!(store.delete_custom_csr(&scope, ids[0], &actor(), now()).await.unwrap(), Deletion::Deleted);
        assert_eq!(test.number(JOBS).await, 3, "each of the other two has a job of its own");
        assert_eq!(store.sweep().await.unwrap().requeued, 0);
        assert_eq!(ids_of_started(&*store, ids[1], |_| 64).await, ids[1..]);
    }
}

#[tokio::test]
async fn a_shared_job_that_is_given_back_before_its_rows_are_started_leaves_each_a_job() {
    let (test, store) = database().await;
    let scope = granted(&*store, 20).await;
    let ids = sharing(&test, &*store, &scope).await;
    assert!(store.defer_generation(ids[0], Duration::ZERO).await.unwrap());
    // As apalis does with a job that ended.
    test.execute("UPDATE {jobs} SET status = 'Done' WHERE id NOT IN (SELECT job_id FROM custom_csrs)").await;
    assert_eq!(test.number(JOBS).await, 4);
    assert_eq!(store.sweep().await.unwrap().requeued, 0);
    assert_eq!(ids_of_started(&*store, ids[1], |_| 64).await, ids);
}
