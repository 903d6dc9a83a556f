//! What an open database is, where it may be, and why it could not be opened.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    PgPool, Pool, SqlitePool,
    migrate::{Migrate as _, MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use tokio::task::JoinSet;

use super::{Dialect, Store};

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
    /// The server does not answer.
    #[error("the database server {server} cannot be reached: {reason}")]
    Unreachable {
        /// Its host and port.
        server: String,
        /// What the operating system says.
        reason: String,
    },
    /// The server answers, and refuses.
    #[error("the database server refuses: {0}")]
    Refused(String),
    /// Another process holds the lock of migrations and does not let go.
    #[error(
        "another process has been migrating the database for over {0:?}: wait for it, or end the session that holds the advisory lock {1}"
    )]
    Locked(Duration, i64),
    /// Another process serves on this database.
    #[error("the database {0} is in use by another csrd process: stop it first, or use another data directory")]
    InUse(PathBuf),
    /// A newer version of csrd made a change that this one cannot live with.
    #[error("the database needs a version of csrd that knows migration {0}: use the newer version, or restore a backup")]
    Newer(i64),
    /// The migrations were not run.
    #[error("the database lacks migration {0}: run `csrd migrate`")]
    NotMigrated(i64),
    /// A migration failed.
    #[error("a migration of the database failed: {0}")]
    Migration(String),
}

/// Why a copy of a database was not made, in the database's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CopyError(String);

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
    /// Migrations that opening it ran.
    pub migrated: usize,
}

/// What lives as long as a store.
#[derive(Default)]
pub(super) struct Held {
    /// On SQLite, the lock: closing the file gives it back.
    pub _lock: Option<std::fs::File>,
    /// On SQLite, which file it is.
    pub file: Option<OpenFile>,
    /// Those that write and read in groups; on PostgreSQL, those that notify and listen.
    pub tasks: JoinSet<()>,
}

/// The file of a database that is open.
pub(super) struct OpenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OpenFile {
    /// The one that is at this path now; none where the operating system does not tell.
    pub fn at(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// What became of it, where another one or none is at its path.
    pub fn moved(&self) -> Option<String> {
        let path = self.path.display();
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => None,
            Ok(_) => Some(format!("the database {path} was replaced by another file: restart csrd on the right one")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("the database {path} was moved or deleted: move it back, or restart csrd on the right one"))
            }
            // A directory that cannot be looked into for a moment tells nothing of the file.
            Err(_) => None,
        }
    }
}

impl Queue {
    /// The same with connections of its own: those of the old one may be dead without a word.
    #[must_use]
    pub fn renewed(&self) -> Self {
        match self {
            Self::Sqlite(_) => self.clone(),
            Self::Postgres(pool) => Self::Postgres(pool.options().clone().connect_lazy_with((*pool.connect_options()).clone())),
        }
    }
}

impl Database {
    /// Copies SQLite as it is at one moment into an empty file, beside whoever writes.
    ///
    /// # Errors
    ///
    /// [`CopyError`]; what the file holds then is of no use.
    pub async fn copy_to(&self, file: &Path) -> Result<(), CopyError> {
        let Queue::Sqlite(pool) = &self.queue else {
            return Err(CopyError("PostgreSQL is copied by pg_dump".to_owned()));
        };
        let name = file.to_str().ok_or_else(|| CopyError("the name of the copy is not UTF-8".to_owned()))?;
        let copied = sqlx::query("VACUUM INTO $1").bind(name).execute(pool).await;
        copied.map(drop).map_err(|error| CopyError(database_words(&error)))
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

/// Runs the queue's migrations and then ours, which build on them; how many ran.
///
/// Migrations that this version does not know are no fault: they only add, unless they say otherwise. Whoever calls this holds a lock.
pub(super) async fn migrate<DB: Dialect>(pool: &Pool<DB>) -> Result<usize, OpenError>
where
    <DB as sqlx::Database>::Connection: sqlx::migrate::Migrate,
{
    let failed = |error: MigrateError| match error {
        MigrateError::VersionNotPresent(version) => OpenError::NotMigrated(version),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => OpenError::Migration(database_words(&error)),
        other => OpenError::Migration(other.to_string()),
    };
    let mut connection = pool.acquire().await.map_err(|error| OpenError::Migration(database_words(&error)))?;
    let mut ran = 0;
    for mut migrator in [DB::queue_migrations(), DB::migrations()] {
        migrator.set_ignore_missing(true).set_locking(false);
        let table = migrator.table_name.clone();
        for schema in migrator.create_schemas.iter() {
            connection.create_schema_if_not_exists(schema).await.map_err(failed)?;
        }
        connection.ensure_migrations_table(&table).await.map_err(failed)?;
        let before = connection.list_applied_migrations(&table).await.map_err(failed)?;
        let applied: Vec<i64> = before.iter().map(|migration| migration.version).collect();
        let _ = warn_of_newer(&migrator, &applied);
        ran += migrator.iter().filter(|migration| !applied.contains(&migration.version)).count();
        migrator.run_direct(None, &mut *connection, false).await.map_err(failed)?;
    }
    Ok(ran)
}

/// Logs that the database has migrations of a newer version. Those that are known to this version.
pub(super) fn warn_of_newer(migrator: &Migrator, applied: &[i64]) -> Vec<i64> {
    let known: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
    if let Some(newest) = applied.iter().filter(|version| !known.contains(version)).max() {
        tracing::warn!(migration = newest, "a newer version of csrd migrated this database: this one goes on, since that only added to it");
    }
    known
}

/// Refuses a database that a newer version changed in a way that this one cannot live with. `minimum` is what the table says, if it is there.
pub(super) fn check_compatible<DB: Dialect>(minimum: Option<i64>) -> Result<(), OpenError> {
    let newest = DB::migrations().iter().map(|migration| migration.version).max();
    match minimum {
        Some(minimum) if Some(minimum) > newest => Err(OpenError::Newer(minimum)),
        _ => Ok(()),
    }
}

/// What the database says, without the place in its own sources.
pub(super) fn database_words(error: &sqlx::Error) -> String {
    let Some(database) = error.as_database_error() else { return error.to_string() };
    let message = database.message();
    if database.code().as_deref() == Some("42501") { format!("{message}: see Rights in docs/operations.md") } else { message.to_owned() }
}
