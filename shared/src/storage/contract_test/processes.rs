//! Several processes on one database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{accept, database, generated, granted, query};
use crate::{
    error::StoreError,
    model::KeyType,
    storage::{Acceptance, Access, Database, Dialect, Migrate, OpenError, Queue},
    testing::{TestDatabase, actor, new_custom_csr, now, zone},
};

#[tokio::test]
async fn a_second_process_may_not_serve_the_same_file_but_any_number_the_same_server() {
    let (test, _store) = database().await;
    let open = |exclusive| Database::open(&test.location, Access { exclusive, ..Access::default() });
    assert_eq!(matches!(open(true).await, Err(OpenError::InUse(_))), !test.is_postgres());
    assert!(open(false).await.is_ok(), "a command beside it may work on it");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let (test, _store) = database().await;
    let (yes, checksum) = if test.is_postgres() { ("TRUE", "'\\x00'") } else { ("1", "x'00'") };
    test.execute(&format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', {yes}, {checksum}, 0)"
    ))
    .await;
    for migrate in [Migrate::Always, Migrate::FirstStart] {
        let access = Access { migrate, ..Access::default() };
        assert!(matches!(Database::open(&test.location, access).await, Err(OpenError::Newer(9999))));
    }
}

#[tokio::test]
async fn a_first_start_needs_no_more_than_its_pool_of_one_connection() {
    let test = TestDatabase::opened(Access { exclusive: true, pool_size: 1, migrate: Migrate::FirstStart }).await;
    granted(&*test.database.store, 1).await;
}

#[tokio::test]
async fn sqlite_keeps_every_commit_and_overwrites_what_is_deleted() {
    let (test, _store) = database().await;
    let Queue::Sqlite(pool) = &test.database.queue else { return };
    for (pragma, value) in [("PRAGMA synchronous", 2), ("PRAGMA secure_delete", 1), ("PRAGMA foreign_keys", 1)] {
        assert_eq!(test.number(pragma).await, value, "{pragma}");
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.unwrap();
    assert_eq!(mode, "wal");
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

/// Our migration drops the trigger that stands at the end of apalis' migrations of today. One that an upgrade adds runs after ours
/// where a database exists already, and before it in a fresh one, where its trigger would go unnoticed.
#[test]
fn no_migration_of_apalis_brings_the_trigger_back() {
    let with_trigger: Vec<i64> = <sqlx::Postgres as Dialect>::queue_migrations()
        .iter()
        .filter(|migration| migration.sql.as_str().to_uppercase().contains("TRIGGER"))
        .map(|migration| migration.version)
        .collect();
    assert_eq!(with_trigger, [20_220_530_084_123, 20_250_722_071_207, 20_251_018_165_121], "drop it again in a migration of ours");
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
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap());
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
    let (one, two) = tokio::join!(store.sweep(now()), other.store.sweep(now()));
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
