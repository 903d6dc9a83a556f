//! Opening SQLite: one file, one serving process, one writing connection.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    Sqlite,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    SqlStore,
    connect::{Access, Database, Held, OpenError, OpenFile, Queue, check_compatible, migrate},
    pool::{API_WAIT, QUEUE_WAIT, TURN_WAIT, pool},
    signals::Signals,
};

/// Reading connections of one process.
const READERS: u32 = 4;
/// Connections of the job queue.
const QUEUE_CONNECTIONS: u32 = 2;
/// How long the job queue waits for the file's lock.
const QUEUE_BUSY_TIME: Duration = Duration::from_secs(15);
/// SQLite answers or says that it is busy; this only bounds what should not happen.
const STATEMENT_TIME: Duration = Duration::from_secs(30);

/// Opens the database in this file. The lock file stands beside it.
pub(super) async fn open(path: &Path, access: Access) -> Result<Database, OpenError> {
    let lock = if access.exclusive { Some(lock(path)?) } else { None };
    create_private(path)?;
    let file_error = |error: sqlx::Error| OpenError::File { path: path.to_owned(), reason: error.to_string() };
    let options = options(path);
    let write = pool(1, TURN_WAIT).connect_with(options.clone().busy_timeout(API_WAIT)).await.map_err(file_error)?;
    // Where there is no such table nothing says that this version may not work here.
    let minimum = sqlx::query_scalar("SELECT MAX(minimum) FROM compatibility").fetch_one(&write).await;
    check_compatible::<Sqlite>(minimum.ok())?;
    let migrated = migrate(&write).await?;
    let read = pool(READERS, API_WAIT).connect_with(options.clone().busy_timeout(API_WAIT)).await.map_err(file_error)?;
    let queue = pool(QUEUE_CONNECTIONS, QUEUE_WAIT).connect_with(options.busy_timeout(QUEUE_BUSY_TIME)).await.map_err(file_error)?;
    let held = Held { _lock: lock, file: OpenFile::at(path), ..Held::default() };
    let store = SqlStore::<Sqlite>::new(read, write, Arc::new(Signals::new(None)), STATEMENT_TIME).grouping(held);
    Ok(Database { store: Arc::new(store), queue: Queue::Sqlite(queue), migrated })
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
