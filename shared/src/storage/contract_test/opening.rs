//! Opening a database: what is migrated and what is refused, how it is set, and whether it is still there.

use sqlx::{Connection, sqlite::SqliteConnectOptions};

use super::{database, granted};
use crate::{
    storage::{Access, Database, Dialect, Location, Migrate, OpenError, Queue},
    testing::TestDatabase,
};

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
