//! Opening SQLite: one file, one serving process, one writing connection.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Connection, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    Access, Migrate, OpenError, Opened, Queue,
    connections::Connections,
    migrate::{check_compatible, migrate},
    pool::{self, API_WAIT, QUEUE_WAIT},
    writer::Writer,
};

/// Reading connections of one process.
const READERS: u32 = 4;
/// What the writing connection keeps of the file in memory, in KiB below zero as SQLite takes it. By default it is 2 MiB, and the pages that
/// each batch touches, those of all indexes, are read anew time and again.
const WRITER_CACHE: &str = "-16384";
/// The write-ahead log is written into the file once it has so many pages, 16 MiB. By default it is 1,000: the pages that each batch touches
/// would be written, and waited for, after every few batches.
const CHECKPOINT_PAGES: &str = "4096";
/// SQLite answers or says that it is busy; this only bounds what should not happen.
const STATEMENT_TIME: Duration = Duration::from_secs(30);

/// Opens the database in this file. The lock file stands beside it.
pub async fn open(path: &Path, access: Access) -> Result<(Opened<Sqlite>, OpenFile), OpenError> {
    let lock = if access.exclusive { Some(lock(path)?) } else { None };
    create_private(path)?;
    if is_foreign(path).await {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let file_error = |error: sqlx::Error| OpenError::File { path: path.to_owned(), reason: error.to_string() };
    let options = options(path);
    let writer = options.clone().busy_timeout(API_WAIT).pragma("cache_size", WRITER_CACHE);
    let write = pool(1, QUEUE_WAIT).connect_with(writer).await.map_err(file_error)?;
    // Where there is no such table nothing says that this version may not work here.
    let minimum = sqlx::query_scalar("SELECT MAX(minimum) FROM compatibility").fetch_one(&write).await;
    check_compatible::<Sqlite>(minimum.ok())?;
    if access.migrate == Migrate::Never && !is_ours(&write).await.map_err(file_error)? {
        return Err(OpenError::Empty);
    }
    let migrated = migrate(&write).await?;
    let read = pool(READERS, API_WAIT).connect_with(options.clone().busy_timeout(API_WAIT)).await.map_err(file_error)?;
    let file = OpenFile { _lock: lock, identity: Identity::at(path), path: path.to_owned() };
    let (read, write) = (Connections::of(read), Connections::of(write));
    Ok((Opened { read, queue: Queue::Sqlite(Writer::of(write.clone())), write, statement_time: STATEMENT_TIME, migrated }, file))
}

/// Connections to a file need not be renewed as those to a server: each new one reads its pages anew, and the memory that the caches of old
/// ones leave in pieces adds up.
fn pool(connections: u32, wait: Duration) -> PoolOptions<Sqlite> {
    pool::pool(connections, wait).max_lifetime(None)
}

/// Whether a migration of ours ever ran here.
async fn is_ours(pool: &SqlitePool) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')").fetch_one(pool).await
}

/// Whether there are tables, and none of those that csrd makes first: it would add its own to a database that was named by mistake. What cannot
/// be read is left to whoever opens it next, who says why.
async fn is_foreign(path: &Path) -> bool {
    let tables = "SELECT COUNT(*) > 0 AND COUNT(*) FILTER (WHERE name IN ('_apalis_migrations', 'custom_csrs')) = 0 \
        FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'";
    // Without the pragmas below, of which one changes the file.
    let Ok(mut connection) = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await else { return false };
    let is_foreign = sqlx::query_scalar(tables).fetch_one(&mut connection).await;
    let _ = connection.close().await;
    is_foreign.unwrap_or(false)
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
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
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

/// The file of a database that is open.
pub struct OpenFile {
    /// Closing it gives the lock back.
    _lock: Option<File>,
    path: PathBuf,
    identity: Option<Identity>,
}

/// Which file it is, whatever its name.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of the file that is at this path now, if the operating system tells.
    fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|found| Self { device: found.dev(), inode: found.ino() })
    }
}

impl OpenFile {
    /// What became of it, if another file or none is at its path.
    pub fn moved(&self) -> Option<String> {
        let (path, identity) = (self.path.display(), self.identity.as_ref()?);
        match std::fs::metadata(&self.path) {
            Ok(found) if *identity == (Identity { device: found.dev(), inode: found.ino() }) => None,
            Ok(_) => Some(format!("the database {path} was replaced by another file: restart csrd on the right one")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("the database {path} was moved or deleted: move it back, or restart csrd on the right one"))
            }
            // A directory that cannot be looked into for a moment tells nothing of the file.
            Err(_) => None,
        }
    }
}
