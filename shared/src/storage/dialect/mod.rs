//! What truly differs between the databases.

use std::{future::Future, time::Duration};

use sqlx::{Database, error::DatabaseError, migrate::Migrator};
use ulid::Ulid;

use super::value::Value;
use crate::job::GenerateCsrJob;

/// A job to enqueue in the caller's transaction.
#[derive(Debug)]
pub struct NewJob {
    /// Its ID.
    pub id: String,
    /// What it says.
    pub job: GenerateCsrJob,
    /// How long it waits, by the database's clock; none: it is due at once, whatever any clock says.
    pub delay: Option<Duration>,
}

impl NewJob {
    /// A job with a fresh ID that is due at once.
    #[must_use]
    pub fn new(job: GenerateCsrJob) -> Self {
        Self { id: Ulid::generate().to_string(), job, delay: None }
    }

    /// The same job, due after `delay`.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay: Some(delay), ..self }
    }
}

/// A database that [`super::SqlStore`] runs on: the statements that only it understands, and how values go in and out.
pub trait Dialect: Database {
    /// Begins a transaction that will write.
    const BEGIN_WRITE: &'static str;
    /// Begins one whose writes are those of several callers: a lock that does not come soon is an error.
    const BEGIN_GROUP: &'static str;
    /// Begins a transaction whose reads all see one state.
    const BEGIN_READ: &'static str;
    /// IDs and job IDs of up to `$1` pending rows whose job is gone or dead, or to wait longer than any job has to: a clock was wrong when
    /// it was made.
    const JOBLESS: &'static str;
    /// Takes up to `$1` jobs out of the queue that wait for a key of type `$2`, were not started yet and are due by the database's clock;
    /// their IDs. What others are busy with is passed over.
    const TAKE_JOBS: &'static str;
    /// Starts the rows of these jobs, which wait for a key of type `$3`, and gives them job `$1`; `$2` is a JSON array with the IDs of the
    /// jobs.
    const START_ROWS_OF_JOBS: &'static str;
    /// Leases a free pool key of master key `$3` to `$1` for `$2` microseconds by the database's clock and passes over those that others are
    /// just leasing.
    const LEASE_POOL_KEY: &'static str;
    /// Takes the lock under which keys are added to the pool, until the transaction ends. None where one transaction at a time writes anyway.
    const POOL_LOCK: Option<&'static str>;
    /// Takes the lock under which master keys are registered, until the transaction ends. None where one transaction at a time writes anyway.
    const MASTER_KEY_LOCK: Option<&'static str>;
    /// Deletes all pool keys, where one process has all workers.
    const EMPTY_POOL: Option<&'static str>;
    /// The custom CSRs that the JSON array `$1` of pairs names, each by its ID and its scope.
    const FIND_CUSTOM_CSRS: &'static str;
    /// Whether accepted requests share commits. Not where transactions run side by side: one that waits would keep others waiting.
    const GROUPS_ACCEPTS: bool;
    /// Deletes the job `$1` if no worker has it yet; one that has it finds nothing to do.
    const CANCEL_JOB: &'static str;
    /// Takes the lock that lets one process at a time sweep or purge, until the transaction ends; `locked` is 1 where it was free.
    /// None where only one process sweeps anyway.
    const SWEEP_LOCK: Option<&'static str>;
    /// Deletes up to `$2` jobs that ended before `$1` (seconds since the Unix epoch).
    const PURGE_JOBS: &'static str;
    /// Deletes up to `$2` workers last seen before `$1` (seconds since the Unix epoch) that no job names.
    const PURGE_WORKERS: &'static str;
    /// Gives back the jobs that workers hold, where one process has all workers.
    const RELEASE_JOBS: Option<&'static str>;

    /// The database's clock in microseconds since the Unix epoch (`now`), the workers seen within the last `$1` seconds (`workers`), the
    /// pending custom CSRs (`pending`) and when the oldest of them was accepted (`oldest`). `has_scopes` is asked for its failure: a database
    /// without that table, or without the right to read it, is not ready.
    const VITALS: &'static str;

    /// Empties the write-ahead log into the database, where that is ours to do.
    const CHECKPOINT: Option<&'static str>;

    /// Our own migrations for this database.
    fn migrations() -> Migrator;

    /// The migrations of the job queue.
    fn queue_migrations() -> Migrator;

    /// Enqueues a job within the caller's transaction.
    fn push_job(connection: &mut Self::Connection, job: NewJob) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Runs statements without parameters, none of them prepared.
    fn simple(connection: &mut Self::Connection, sql: &'static str) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Runs a statement; the number of rows that it changed.
    fn execute(connection: &mut Self::Connection, sql: &'static str, values: Vec<Value>) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// Runs a statement and takes its rows.
    fn fetch(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: Vec<Value>,
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Row>>> + Send;

    /// Reads a TEXT column.
    fn text(row: &Self::Row, column: &str) -> sqlx::Result<Option<String>>;

    /// Reads an integer column.
    fn int(row: &Self::Row, column: &str) -> sqlx::Result<Option<i64>>;

    /// Reads a column of bytes.
    fn blob(row: &Self::Row, column: &str) -> sqlx::Result<Option<Vec<u8>>>;

    /// Whether this error says that the database is out of reach, locked or full rather than that the statement is wrong.
    fn is_unavailable(error: &dyn DatabaseError) -> bool;

    /// Whether a commit that ended in this error may have happened all the same.
    fn is_ambiguous(error: &sqlx::Error) -> bool;
}

/// The part of a dialect that is the same text for each database, but not the same types.
macro_rules! statements {
    () => {
        async fn simple(connection: &mut Self::Connection, sql: &'static str) -> sqlx::Result<()> {
            connection.execute(sql).await.map(drop)
        }

        async fn execute(connection: &mut Self::Connection, sql: &'static str, values: Vec<Value>) -> sqlx::Result<u64> {
            Ok(sqlx::query_with(sql, arguments::<Self>(values)?).execute(connection).await?.rows_affected())
        }

        async fn fetch(connection: &mut Self::Connection, sql: &'static str, values: Vec<Value>) -> sqlx::Result<Vec<Self::Row>> {
            sqlx::query_with(sql, arguments::<Self>(values)?).fetch_all(connection).await
        }

        fn text(row: &Self::Row, column: &str) -> sqlx::Result<Option<String>> {
            row.try_get(column)
        }

        fn int(row: &Self::Row, column: &str) -> sqlx::Result<Option<i64>> {
            row.try_get(column)
        }

        fn blob(row: &Self::Row, column: &str) -> sqlx::Result<Option<Vec<u8>>> {
            row.try_get(column)
        }
    };
}

fn arguments<DB: Dialect<Arguments: Bind>>(values: Vec<Value>) -> sqlx::Result<DB::Arguments> {
    let mut arguments = DB::Arguments::default();
    for value in values {
        arguments.bind(value).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Takes a [`Value`] in the database's own encoding.
trait Bind {
    fn bind(&mut self, value: Value) -> Result<(), sqlx::error::BoxDynError>;
}

macro_rules! bind {
    ($arguments:ty) => {
        impl Bind for $arguments {
            fn bind(&mut self, value: Value) -> Result<(), sqlx::error::BoxDynError> {
                use sqlx::Arguments;
                match value {
                    Value::Text(text) => self.add(text),
                    Value::Int(int) => self.add(int),
                    Value::Blob(bytes) => self.add(bytes),
                }
            }
        }
    };
}

bind!(sqlx::sqlite::SqliteArguments);
bind!(sqlx::postgres::PgArguments);

mod postgres;
mod sqlite;
