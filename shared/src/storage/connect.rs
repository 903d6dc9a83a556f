//! Opening a database: once, from its URL.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    Pool, Sqlite, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Dialect, SqlStore, Store};

/// How long the API waits for a connection, and then for the file's lock: two reads and a write stay under 5 s together.
const API_WAIT: Duration = Duration::from_millis(1_500);
/// How long the job queue's own connections wait: a worker has time, and an error ends it.
const QUEUE_WAIT: Duration = Duration::from_secs(15);
/// Reading connections of one process.
const READERS: u32 = 4;
/// Connections of the job queue.
const QUEUE_CONNECTIONS: u32 = 2;

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, or its directory, cannot be opened or created.
    #[error("the database {path} cannot be opened: {reason}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system or the database says.
        reason: String,
    },
    /// Another process serves on this database.
    #[error("the database {0} is in use by another csrd process: stop it first, or use another data directory")]
    InUse(PathBuf),
    /// A newer version of csrd was here before.
    #[error("the database has migration {0}, which this version of csrd does not know: use the newer version, or restore a backup")]
    Newer(i64),
    /// The migrations were not run.
    #[error("the database lacks migration {0}: run `csrd migrate`")]
    NotMigrated(i64),
    /// A migration failed.
    #[error("a migration of the database failed: {0}")]
    Migration(String),
}

/// An open database: the store for everybody, the pool for the job queue's own work.
pub struct Database {
    /// The storage.
    pub store: Arc<dyn Store>,
    /// For the workers of the job queue.
    pub queue: SqlitePool,
    /// Held as long as this process serves: closing the file gives the lock back.
    _lock: Option<File>,
}

impl Database {
    /// Closes every connection. Whoever serves gives the database back in order.
    pub async fn close(self) {
        self.queue.close().await;
        self.store.close().await;
    }
}

/// Opens the SQLite database in this file, creating and migrating it where needed.
///
/// With `exclusive`, takes the lock that lets one process serve: the lock file stands beside the database.
///
/// # Errors
///
/// See [`OpenError`].
pub async fn open_sqlite(path: &Path, exclusive: bool) -> Result<Database, OpenError> {
    let lock = if exclusive { Some(lock(path)?) } else { None };
    create_private(path)?;
    let file_error = |error: sqlx::Error| OpenError::File { path: path.to_owned(), reason: error.to_string() };
    let options = options(path);
    let write = pool(1, API_WAIT).connect_with(options.clone().busy_timeout(API_WAIT)).await.map_err(file_error)?;
    migrate(&write).await?;
    let read = pool(READERS, API_WAIT).connect_with(options.clone().busy_timeout(API_WAIT)).await.map_err(file_error)?;
    let queue = pool(QUEUE_CONNECTIONS, QUEUE_WAIT).connect_with(options.busy_timeout(QUEUE_WAIT)).await.map_err(file_error)?;
    Ok(Database { store: Arc::new(SqlStore::<Sqlite>::new(read, write)), queue, _lock: lock })
}

/// WAL for readers that never wait; FULL, since a 201 promises what NORMAL can lose; deleted keys are overwritten.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("secure_delete", "ON")
        .pragma("journal_size_limit", "67108864")
}

fn pool(connections: u32, wait: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections).acquire_timeout(wait)
}

/// SQLite itself would create the file readable for others.
fn create_private(path: &Path) -> Result<(), OpenError> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    // A database on a read-only file is opened all the same: reads go on, and writes say what is wrong.
    match opened {
        Err(_) if path.exists() => Ok(()),
        other => other.map(drop).map_err(|error| OpenError::File { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file_error = |error: std::io::Error| OpenError::File { path: PathBuf::from(&name), reason: error.to_string() };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name).map_err(file_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(file_error(error)),
    }
}

async fn migrate<DB: Dialect>(pool: &Pool<DB>) -> Result<(), OpenError>
where
    <DB as sqlx::Database>::Connection: sqlx::migrate::Migrate,
{
    run(DB::queue_migrations(), pool).await?;
    run(DB::migrations(), pool).await
}

async fn run<DB: Dialect>(migrator: Migrator, pool: &Pool<DB>) -> Result<(), OpenError>
where
    <DB as sqlx::Database>::Connection: sqlx::migrate::Migrate,
{
    migrator.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => OpenError::Newer(version),
        MigrateError::VersionNotPresent(version) => OpenError::NotMigrated(version),
        other => OpenError::Migration(other.to_string()),
    })
}
