//! What opening a database asks for, gives, and refuses with.

use std::{path::PathBuf, time::Duration};

use sqlx::{PgPool, postgres::PgConnectOptions};

use super::{Dialect, connections::Connections, pool::PoolUse, writer::Writer};

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
    /// Nothing of csrd is in the database, and this is no command that begins one.
    #[error("the database is not one of csrd: run `csrd migrate`")]
    Empty,
    /// The file is a database of another program.
    #[error("{0} is a database of another program, without a table of csrd: name another file")]
    Foreign(PathBuf),
    /// A migration failed.
    #[error("a migration of the database failed: {0}")]
    Migration(String),
}

/// Why a copy of a database was not made, in the database's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CopyError(pub(in crate::storage) String);

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
        Self { exclusive: false, pool_size: 4, migrate: Migrate::Never }
    }
}

/// When to run migrations. In a file of SQLite, which belongs to one service, they always run, unless nothing of csrd is there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrate {
    /// Not at all: in a wrong place a command would seem to work, on nothing.
    Never,
    /// Where nothing of ours is there yet; otherwise they must all have run.
    FirstStart,
    /// In any case.
    Always,
}

/// The connections of the job queue's own workers.
#[derive(Clone)]
pub enum Queue {
    /// To the file: that of all writers, so that they take turns instead of polling for the file's lock.
    Sqlite(Writer),
    /// To the server.
    Postgres(PgPool),
}

impl Queue {
    /// The kind of database, as OpenTelemetry names it.
    #[must_use]
    pub const fn database(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgresql",
        }
    }

    /// How many connections there are, if they are its own.
    #[must_use]
    pub fn pool(&self) -> Option<PoolUse> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(pool) => Some(PoolUse::of("queue", pool, 0)),
        }
    }

    /// The same with connections of its own: those of the old one may be dead without a word.
    #[must_use]
    pub fn renewed(&self) -> Self {
        match self {
            Self::Sqlite(_) => self.clone(),
            Self::Postgres(pool) => Self::Postgres(pool.options().clone().connect_lazy_with((*pool.connect_options()).clone())),
        }
    }
}

/// The connections to a database that was opened.
pub struct Opened<DB: Dialect> {
    /// For reads.
    pub read: Connections<DB>,
    /// For writes.
    pub write: Connections<DB>,
    /// For the workers of the job queue.
    pub queue: Queue,
    /// How long one statement may take.
    pub statement_time: Duration,
    /// Migrations that opening it ran.
    pub migrated: usize,
}
