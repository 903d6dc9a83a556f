//! Several processes on one database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection, sqlite::SqliteConnectOptions};

use super::{accept, database, generated, granted, query};
use crate::{
    custom_csr::KeyType,
    job::GENERATE_CSR_QUEUE,
    storage::{Acceptance, Access, Database, Dialect, Location, Migrate, OpenError, Queue, StoreError},
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
async fn a_database_that_a_newer_version_only_added_to_is_opened_and_one_that_needs_it_is_refused() {
    let (test, _store) = database().await;
    let (yes, checksum) = if test.is_postgres() { ("TRUE", "'\\x00'") } else { ("1", "x'00'") };
    let queue = if test.is_postgres() { "apalis._sqlx_migrations" } else { "_apalis_migrations" };
    for table in ["_sqlx_migrations", queue] {
        test.execute(&format!(
            "INSERT INTO {table} (version, description, success, checksum, execution_time) VALUES (99990101000000, 'x', {yes}, {checksum}, 0)"
        ))
        .await;
    }
    for migrate in [Migrate::Always, Migrate::FirstStart] {
        let other = Database::open(&test.location, Access { migrate, ..Access::default() }).await.unwrap();
        assert_eq!(other.migrated, 0);
        other.close().await;
    }
    test.execute("UPDATE compatibility SET minimum = 99990101000000").await;
    for migrate in [Migrate::Always, Migrate::FirstStart] {
        let access = Access { migrate, ..Access::default() };
        assert!(matches!(Database::open(&test.location, access).await, Err(OpenError::Newer(99_990_101_000_000))));
    }
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.db");
    let mut other =
        sqlx::SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path).create_if_missing(true)).await.unwrap();
    for statement in ["CREATE TABLE _sqlx_migrations (version INTEGER)", "CREATE TABLE notes (note TEXT)"] {
        sqlx::query(statement).execute(&mut other).await.unwrap();
    }
    other.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    for migrate in [Migrate::Always, Migrate::FirstStart, Migrate::Never] {
        let opened = Database::open(&Location::Sqlite(path.clone()), Access { migrate, ..Access::default() }).await;
        assert!(matches!(opened, Err(OpenError::Foreign(_))), "{migrate:?}");
        assert!(std::fs::read(&path).unwrap() == before, "{migrate:?}");
    }
}

/// A lock on a table that is in use would stop every process of the version before.
#[test]
fn migrations_for_postgresql_make_indexes_on_tables_that_exist_without_a_lock() {
    for migration in <sqlx::Postgres as Dialect>::migrations().iter().filter(|migration| migration.version > 4) {
        let sql = migration.sql.as_str().to_uppercase();
        for index in sql.split(';').filter(|statement| statement.contains("CREATE INDEX") || statement.contains("CREATE UNIQUE INDEX")) {
            let table = index.split(" ON ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
            if !sql.contains(&format!("CREATE TABLE {table}")) {
                assert!(index.contains("INDEX CONCURRENTLY IF NOT EXISTS"), "{}: {index}", migration.version);
                assert!(migration.no_tx, "{}: its first line has to be -- no-transaction", migration.version);
            }
        }
    }
}

#[tokio::test]
async fn an_index_that_was_made_by_half_is_dropped_by_the_next_migration() {
    let (test, _store) = database().await;
    let Queue::Postgres(pool) = &test.database.queue else { return };
    test.execute("INSERT INTO scopes (scope, kind, granted, updated_at) VALUES ('zones/x', 'zone', 1, 0), ('zones/y', 'zone', 1, 0)").await;
    // Two equal values: it ends half-way, as one does that is interrupted.
    let made = sqlx::query("CREATE UNIQUE INDEX CONCURRENTLY \"half Made\" ON scopes (kind)").execute(pool).await;
    assert!(made.is_err());
    let invalid = "SELECT COUNT(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(test.number(invalid).await, 1);
    Database::open(&test.location, Access { migrate: Migrate::Always, ..Access::default() }).await.unwrap().close().await;
    assert_eq!(test.number(invalid).await, 0);
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
async fn a_file_that_was_moved_or_replaced_is_noticed() {
    let (test, store) = database().await;
    if test.is_postgres() {
        assert_eq!(store.moved(), None);
        return;
    }
    assert_eq!(store.moved(), None);
    let (file, elsewhere) = (test.file(), test.directory.path().join("elsewhere"));
    std::fs::rename(&file, &elsewhere).unwrap();
    assert!(store.moved().unwrap().contains("moved or deleted"));
    std::fs::write(&file, "").unwrap();
    assert!(store.moved().unwrap().contains("replaced"));
    std::fs::rename(&elsewhere, &file).unwrap();
    assert_eq!(store.moved(), None);
}

#[tokio::test]
async fn a_first_start_needs_no_more_than_its_pool_of_one_connection() {
    let test = TestDatabase::opened(Access { exclusive: true, pool_size: 1, migrate: Migrate::FirstStart }).await;
    granted(&*test.database.store, 1).await;
}

#[tokio::test]
async fn sqlite_keeps_every_commit_and_overwrites_what_is_deleted() {
    let (test, _store) = database().await;
    let Queue::Sqlite(writer) = &test.database.queue else { return };
    for (pragma, value) in [("PRAGMA synchronous", 2), ("PRAGMA secure_delete", 1), ("PRAGMA foreign_keys", 1)] {
        assert_eq!(test.number(pragma).await, value, "{pragma}");
    }
    let mut turn = writer.turn().await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(turn.connection().unwrap()).await.unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn sqlite_is_built_as_the_settings_of_cargo_say() {
    let (test, _store) = database().await;
    let Queue::Sqlite(writer) = &test.database.queue else { return };
    let mut turn = writer.turn().await.unwrap();
    let options: Vec<String> = sqlx::query_scalar("PRAGMA compile_options").fetch_all(turn.connection().unwrap()).await.unwrap();
    let has = |option: &str| options.iter().any(|built| built == option);
    for option in ["ENABLE_QPSG", "DEFAULT_MEMSTATUS=0", "DEFAULT_PCACHE_INITSZ=0"] {
        assert!(has(option), "{option}, see .cargo/config.toml: {options:?}");
    }
    assert!(!has("ENABLE_MEMORY_MANAGEMENT"), "see .cargo/config.toml: {options:?}");
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
