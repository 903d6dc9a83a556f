//! Opening a database: once, from where it is.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sqlx::{
    Connection, PgPool, Pool, SqlitePool,
    migrate::MigrateError,
    pool::{PoolConnectionMetadata, PoolOptions},
    postgres::PgConnectOptions,
};
use tokio::task::JoinSet;

use super::{Dialect, Store, postgres, sqlite};

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
    /// The server cannot be reached, or refuses.
    #[error("the database server cannot be reached: {0}")]
    Server(String),
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

/// Where a database is.
#[derive(Debug, Clone)]
pub enum Location {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Box<PgConnectOptions>),
}

/// What a process is about to do with the database.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// On SQLite: take the lock that lets one process serve.
    pub exclusive: bool,
    /// On PostgreSQL: the connections that the store may have.
    pub pool_size: u32,
    /// When to run migrations.
    pub migrate: Migrate,
}

impl Default for Access {
    fn default() -> Self {
        Self { exclusive: false, pool_size: 4, migrate: Migrate::FirstStart }
    }
}

/// When to run migrations. On SQLite, whose file belongs to one service, they always run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrate {
    /// Where nothing of ours is there yet; otherwise they must all have run.
    FirstStart,
    /// In any case.
    Always,
}

/// The connections of the job queue's own workers.
#[derive(Debug, Clone)]
pub enum Queue {
    /// To the file.
    Sqlite(SqlitePool),
    /// To the server.
    Postgres(PgPool),
}

/// An open database.
pub struct Database {
    /// The storage.
    pub store: Arc<dyn Store>,
    /// For the workers of the job queue.
    pub queue: Queue,
    /// What keeps it open or runs beside it; ends with it.
    pub(super) _held: Held,
}

/// What lives as long as an open database.
#[derive(Default)]
#[expect(dead_code, reason = "held, not read")]
pub(super) struct Held {
    /// On SQLite, the lock: closing the file gives it back.
    pub lock: Option<std::fs::File>,
    /// The task that writes in groups; on PostgreSQL, those that notify and listen.
    pub tasks: JoinSet<()>,
}

impl Database {
    /// Opens it; creates and migrates it where needed.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn open(location: &Location, access: Access) -> Result<Self, OpenError> {
        match location {
            Location::Sqlite(path) => sqlite::open(path, access).await,
            Location::Postgres(options) => postgres::open(options, access).await,
        }
    }

    /// Closes every connection. Whoever serves gives the database back in order.
    pub async fn close(self) {
        match &self.queue {
            Queue::Sqlite(pool) => pool.close().await,
            Queue::Postgres(pool) => pool.close().await,
        }
        self.store.close().await;
    }
}

/// Runs the queue's migrations and then ours, which build on them.
pub(super) async fn migrate<DB: Dialect>(pool: &Pool<DB>) -> Result<(), OpenError>
where
    <DB as sqlx::Database>::Connection: sqlx::migrate::Migrate,
{
    for migrator in [DB::queue_migrations(), DB::migrations()] {
        migrator.run(pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => OpenError::Newer(version),
            MigrateError::VersionNotPresent(version) => OpenError::NotMigrated(version),
            other => OpenError::Migration(other.to_string()),
        })?;
    }
    Ok(())
}

/// How long the API waits for a connection.
pub(super) const API_WAIT: Duration = Duration::from_millis(1_500);
/// How long it waits for its turn to write: for the lock of its zone on PostgreSQL, for the one writing connection on SQLite. Short
/// enough to say within a request's time that nothing was written, long enough for the queue that a slow disk makes.
pub(super) const TURN_WAIT: Duration = Duration::from_millis(2_500);
/// How long a start waits for its first connection.
pub(super) const START_WAIT: Duration = Duration::from_secs(5);
/// How long the job queue waits for a connection: a worker has time, and an error ends it.
pub(super) const QUEUE_WAIT: Duration = Duration::from_secs(30);
/// A connection that was used a moment ago needs no asking whether it lives: that takes as long as a statement.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// A pool whose connections are asked whether they live only where they were idle for a while.
pub(super) fn pool<DB: sqlx::Database>(connections: u32, wait: Duration) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(wait)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| Box::pin(is_usable::<DB>(connection, metadata)))
}

/// An error makes the pool take another connection.
async fn is_usable<DB: sqlx::Database>(connection: &mut DB::Connection, metadata: PoolConnectionMetadata) -> sqlx::Result<bool> {
    if metadata.idle_for > FRESH {
        connection.ping().await?;
    }
    // On SQLite, a COMMIT that finds the disk full rolls back by itself. sqlx's own ROLLBACK then fails, and the connection counts as
    // within a transaction for ever: it is closed instead of used again.
    Ok(!connection.is_in_transaction())
}
