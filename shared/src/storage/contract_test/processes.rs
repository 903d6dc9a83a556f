//! Several processes on one database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{accept, database, generated, granted, query};
use crate::{
    custom_csr::KeyType,
    job::GENERATE_CSR_QUEUE,
    storage::{Acceptance, Access, Database, Dialect, OpenError, Queue, StoreError},
    testing::{actor, new_custom_csr, now, zone},
};

#[tokio::test]
async fn a_second_process_may_not_serve_the_same_file_but_any_number_the_same_server() {
    let (test, _store) = database().await;
    let open = |exclusive| Database::open(&test.location, Access { exclusive, ..Access::default() });
    assert_eq!(matches!(open(true).await, Err(OpenError::InUse(_))), !test.is_postgres());
    assert!(open(false).await.is_ok(), "a command beside it may work on it");
}

#[tokio::test]
async fn a_connection_that_the_server_ended_counts_as_a_database_that_is_away() {
    let (test, _store) = database().await;
    let Queue::Postgres(pool) = &test.database.queue else { return };
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql("SET idle_in_transaction_session_timeout = '20ms'; BEGIN").execute(&mut *connection).await.unwrap();
    let idle = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()";
    let end = Instant::now() + Duration::from_secs(30);
    while test.number(idle).await > 0 {
        assert!(Instant::now() < end, "the server did not end it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = sqlx::query("SELECT 1").execute(&mut *connection).await.unwrap_err();
    assert!(error.as_database_error().is_none_or(<sqlx::Postgres as Dialect>::is_unavailable), "{error:?}");
}

#[tokio::test]
async fn whatever_the_database_is_set_to_requests_are_answered() {
    let (test, _store) = database().await;
    if !test.is_postgres() {
        return;
    }
    for setting in ["standard_conforming_strings = off", "default_transaction_isolation = 'serializable'"] {
        test.execute(&format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {}', current_database()); END $$",
            setting.replace('\'', "''")
        ))
        .await;
    }
    let other = Database::open(&test.location, Access::default()).await.unwrap();
    let scope = granted(&*other.store, 100).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (store, scope) = (Arc::clone(&other.store), scope.clone());
        tasks.spawn(async move { store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await });
    }
    for outcome in tasks.join_all().await {
        assert!(matches!(outcome, Ok(Acceptance::Accepted(_)) | Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert!(!format!("{outcome:?}").contains("serialize"), "{outcome:?}");
    }
    let found =
        other.store.list_custom_csrs(&scope, &crate::storage::ListQuery { search: Some("100%_!\\".into()), ..query() }).await.unwrap();
    assert_eq!(found.total, 0);
    other.close().await;
}

#[tokio::test]
async fn a_job_is_due_by_the_databases_clock_and_one_from_a_wrong_clock_is_made_anew() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    // An API process whose clock is an hour ahead.
    let ahead = now().plus(Duration::from_hours(1));
    assert!(matches!(
        store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), ahead).await,
        Ok(Acceptance::Accepted(_))
    ));
    let due = if test.is_postgres() { "run_at <= now()" } else { "run_at <= CAST(strftime('%s', 'now') AS INTEGER)" };
    assert_eq!(test.number(&format!("SELECT COUNT(*) FROM {{jobs}} WHERE {due}")).await, 1);
    let far = if test.is_postgres() { "now() + interval '100 years'" } else { "9999999999" };
    test.execute(&format!("UPDATE {{jobs}} SET run_at = {far}")).await;
    assert_eq!(store.sweep().await.unwrap().requeued, 1);
    assert_eq!(test.number(&format!("SELECT COUNT(*) FROM {{jobs}} WHERE {due}")).await, 1);
    assert_eq!(store.sweep().await.unwrap().requeued, 0);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_an_error_for_who_asks_for_it_and_for_nobody_else() {
    let (test, store) = database().await;
    let (scope, other) = (granted(&*store, 100).await, zone("z2"));
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(accept(&*store, &scope).await);
    }
    test.execute(&format!("UPDATE custom_csrs SET sans = 'no JSON' WHERE id = '{}'", ids[7])).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        for id in ids.clone() {
            for scope in [scope.clone(), other.clone()] {
                let store = Arc::clone(&store);
                tasks.spawn(async move { (id, scope.clone(), store.find_custom_csr(&scope, id).await) });
            }
        }
    }
    for (id, asked, found) in tasks.join_all().await {
        match found {
            Err(StoreError::Corrupt(_)) => assert!(id == ids[7] && asked == scope),
            Ok(found) => assert_eq!(found.map(|csr| csr.id), (asked == scope).then_some(id)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn one_locked_row_keeps_no_other_completion_waiting() {
    let (test, store) = database().await;
    let Queue::Postgres(pool) = &test.database.queue else { return };
    let scope = granted(&*store, 100).await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(accept(&*store, &scope).await);
    }
    let mut tx = pool.begin_with("BEGIN").await.unwrap();
    sqlx::query("UPDATE custom_csrs SET updated_at = updated_at WHERE id = $1").bind(ids[0].to_string()).execute(&mut *tx).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for (number, id) in ids.iter().copied().enumerate() {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let began = Instant::now();
            let done = store.complete_generation(id, &generated(u8::try_from(number).unwrap()), now()).await;
            (number, done, began.elapsed())
        });
    }
    for (number, done, took) in tasks.join_all().await {
        if number == 0 {
            assert!(done.is_err(), "{done:?}");
        } else {
            assert!(done.unwrap().is_completed() && took < Duration::from_millis(1_500), "{number}: {took:?}");
        }
    }
}

#[tokio::test]
async fn the_vitals_count_what_is_pending_and_workers_that_were_seen() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let seen = Duration::from_secs(30);
    let vitals = store.vitals(seen).await.unwrap();
    assert_eq!((vitals.workers, vitals.pending, vitals.oldest_pending_secs), (0, 0, None));
    assert!(vitals.now.secs().abs_diff(now().secs()) <= 2);
    accept(&*store, &scope).await;
    let vitals = store.vitals(seen).await.unwrap();
    assert_eq!(vitals.pending, 1);
    assert!(vitals.oldest_pending_secs.unwrap() < 10);
    let time = if test.is_postgres() { "now()" } else { "CAST(strftime('%s', 'now') AS INTEGER)" };
    // One that delivers to webhooks makes no keys.
    for (id, queue, workers) in [("v", "deliver", 0), ("w", GENERATE_CSR_QUEUE, 1)] {
        let row = format!("('{id}', '{queue}', 'y', '', {time})");
        test.execute(&format!("INSERT INTO {{workers}} (id, worker_type, storage_name, layers, last_seen) VALUES {row}")).await;
        assert_eq!(store.vitals(seen).await.unwrap().workers, workers, "{queue}");
    }
}

#[tokio::test]
async fn enqueueing_notifies_nobody_within_the_transaction() {
    let (test, _store) = database().await;
    if test.is_postgres() {
        // apalis' trigger would make all commits wait for one lock: an upgrade that brings it back is to be noticed.
        let triggers = "SELECT COUNT(*) FROM pg_trigger WHERE tgrelid = 'apalis.jobs'::regclass AND NOT tgisinternal";
        assert_eq!(test.number(triggers).await, 0);
    }
}

#[tokio::test]
async fn other_processes_hear_of_new_jobs_and_of_changes() {
    let (test, store) = database().await;
    if !test.is_postgres() {
        return;
    }
    let other = Database::open(&test.location, Access::default()).await.unwrap();
    let mut enqueued = other.store.signals().enqueued();
    // Listening begins with a signal of its own: something may have come before.
    enqueued.changed().await.unwrap();
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    enqueued.changed().await.unwrap();
    let mut changes = other.store.signals().changes_of(id);
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap().is_completed());
    changes.next().await;
    drop(changes);
    other.close().await;
}

#[tokio::test]
async fn of_several_processes_that_sweep_at_once_each_row_gets_one_new_job() {
    let (test, store) = database().await;
    let scope = granted(&*store, 50).await;
    for _ in 0..50 {
        accept(&*store, &scope).await;
    }
    test.execute("DELETE FROM {jobs}").await;
    let other = Database::open(&test.location, Access::default()).await.unwrap();
    let (one, two) = tokio::join!(store.sweep(), other.store.sweep());
    assert_eq!(one.unwrap().requeued + two.unwrap().requeued, 50);
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs}").await, 50);
    other.close().await;
}

#[tokio::test]
async fn on_postgresql_an_open_transaction_of_one_zone_keeps_no_other_zone_and_no_reader_waiting() {
    let (test, store) = database().await;
    let Queue::Postgres(pool) = &test.database.queue else { return };
    let (busy, free) = (granted(&*store, 5).await, zone("z2"));
    store.grant_scope(&free, None, Some(5), &actor(), now()).await.unwrap();
    let mut tx = pool.begin_with("BEGIN").await.unwrap();
    sqlx::query("UPDATE scopes SET used = used + 1 WHERE scope = 'zones/z1'").execute(&mut *tx).await.unwrap();
    accept(&*store, &free).await;
    assert_eq!(store.find_scope(&busy).await.unwrap().unwrap().used, 0);
    let blocked = store.accept_custom_csr(&new_custom_csr(&busy, KeyType::P256v1), &actor(), now()).await;
    assert!(matches!(blocked, Err(StoreError::Unavailable(_))), "the same zone has to wait: {blocked:?}");
    tx.rollback().await.unwrap();
    accept(&*store, &busy).await;
}

/// A client that goes away, or a time limit, may end a call at any point.
#[tokio::test]
async fn a_call_that_is_given_up_at_any_point_leaves_no_transaction_open() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10_000).await;
    for round in 0..60_u64 {
        let patience = Duration::from_micros(round * 100);
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (store, scope) = (Arc::clone(&store), scope.clone());
            calls.spawn(tokio::time::timeout(patience, async move {
                if number % 2 == 0 {
                    let _ = store.list_custom_csrs(&scope, &query()).await;
                } else {
                    let _ = store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await;
                }
            }));
        }
        calls.join_all().await;
        if test.is_postgres() {
            let open = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
            let end = Instant::now() + Duration::from_secs(5);
            while test.number(open).await > 0 {
                assert!(Instant::now() < end, "a transaction stays open");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    // What was given up may still be written, before what comes after it.
    accept(&*store, &scope).await;
    let total = store.list_custom_csrs(&scope, &query()).await.unwrap().total;
    accept(&*store, &scope).await;
    assert_eq!(store.list_custom_csrs(&scope, &query()).await.unwrap().total, total + 1);
    assert_eq!(u64::from(store.find_scope(&scope).await.unwrap().unwrap().used), total + 1);
}

#[tokio::test]
async fn two_processes_together_never_get_one_more_than_the_quota() {
    let (test, store) = database().await;
    let scope = granted(&*store, 50).await;
    let other = Database::open(&test.location, Access::default()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..400 {
        let store = Arc::clone(if number % 2 == 0 { &store } else { &other.store });
        let new = new_custom_csr(&scope, KeyType::P256v1);
        tasks.spawn(async move {
            loop {
                // A pool that is used up for a moment is no answer.
                match store.accept_custom_csr(&new, &actor(), now()).await {
                    Err(StoreError::Unavailable(_)) => {}
                    outcome => return outcome.unwrap(),
                }
            }
        });
    }
    let outcomes = tasks.join_all().await;
    let accepted = outcomes.iter().filter(|outcome| matches!(outcome, Acceptance::Accepted(_))).count();
    let refused = outcomes.iter().filter(|outcome| **outcome == Acceptance::QuotaUsedUp(50)).count();
    println!("accepted {accepted}, refused {refused}");
    assert_eq!((accepted, refused), (50, 350));
    other.close().await;
}
