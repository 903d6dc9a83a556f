//! What truly differs between the databases.

use std::{future::Future, time::Duration};

use apalis::prelude::TaskBuilder;
use sqlx::{
    Database, Executor, Postgres, Row, Sqlite,
    error::DatabaseError,
    migrate::Migrator,
    postgres::{PgDatabaseError, PgSeverity},
};
use ulid::Ulid;

use super::{
    custom_csrs::columns::{find_custom_csrs, start_rows_of_jobs},
    value::Value,
};
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

impl Dialect for Sqlite {
    const BEGIN_WRITE: &'static str = "BEGIN IMMEDIATE";
    const BEGIN_GROUP: &'static str = Self::BEGIN_WRITE; // one transaction at a time writes: nothing is locked within
    const BEGIN_READ: &'static str = "BEGIN";
    const JOBLESS: &'static str = "SELECT id, job_id FROM custom_csrs WHERE status = 'pending' AND NOT EXISTS \
        (SELECT 1 FROM Jobs WHERE Jobs.id = custom_csrs.job_id AND Jobs.status IN ('Pending', 'Queued', 'Running') \
        AND Jobs.run_at < CAST(strftime('%s', 'now') AS INTEGER) + 7200) \
        ORDER BY key_type, job_id LIMIT $1";
    // CROSS JOIN: SQLite keeps to the order of the tables, and so to the index of pending rows.
    const TAKE_JOBS: &'static str = "DELETE FROM Jobs WHERE id IN (SELECT Jobs.id FROM custom_csrs CROSS JOIN Jobs \
        WHERE Jobs.id = custom_csrs.job_id AND custom_csrs.status = 'pending' AND custom_csrs.key_type = $2 AND custom_csrs.starts = 0 \
        AND Jobs.status = 'Pending' AND Jobs.run_at <= CAST(strftime('%s', 'now') AS INTEGER) \
        ORDER BY custom_csrs.job_id LIMIT $1) RETURNING id";
    const START_ROWS_OF_JOBS: &'static str = start_rows_of_jobs!("IN (SELECT value FROM json_each($2))");
    const LEASE_POOL_KEY: &'static str = "UPDATE pool_keys SET lease_id = $1, lease_expires_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + $2 \
        WHERE id = (SELECT id FROM pool_keys \
        WHERE lease_id IS NULL AND master_key_id = $3 ORDER BY id LIMIT 1) RETURNING id, spki_sha256, sealed_private_key";
    const POOL_LOCK: Option<&'static str> = None;
    const MASTER_KEY_LOCK: Option<&'static str> = None;
    const EMPTY_POOL: Option<&'static str> = Some("DELETE FROM pool_keys");
    const FIND_CUSTOM_CSRS: &'static str =
        find_custom_csrs!("SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each($1)");
    const GROUPS_ACCEPTS: bool = true;
    const CANCEL_JOB: &'static str = "DELETE FROM Jobs WHERE id = $1 AND status = 'Pending'";
    const SWEEP_LOCK: Option<&'static str> = None;
    const PURGE_JOBS: &'static str =
        "DELETE FROM Jobs WHERE id IN (SELECT id FROM Jobs WHERE status IN ('Done', 'Failed', 'Killed') AND done_at < $1 LIMIT $2)";
    const PURGE_WORKERS: &'static str = "DELETE FROM Workers WHERE id IN (SELECT id FROM Workers WHERE last_seen < $1 \
        AND NOT EXISTS (SELECT 1 FROM Jobs WHERE Jobs.lock_by = Workers.id) LIMIT $2)";
    const RELEASE_JOBS: Option<&'static str> =
        Some("UPDATE Jobs SET status = 'Pending', lock_by = NULL, lock_at = NULL, done_at = NULL WHERE status IN ('Queued', 'Running')");

    const VITALS: &'static str = "SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 AS now, \
        (SELECT COUNT(*) FROM Workers WHERE last_seen > CAST(strftime('%s', 'now') AS INTEGER) - $1) AS workers, \
        COUNT(*) AS pending, MIN(created_at) AS oldest, EXISTS (SELECT 1 FROM scopes) AS has_scopes FROM custom_csrs WHERE status = 'pending'";
    const CHECKPOINT: Option<&'static str> = Some("PRAGMA wal_checkpoint(TRUNCATE)");

    fn migrations() -> Migrator {
        sqlx::migrate!("../migrations/sqlite")
    }

    fn queue_migrations() -> Migrator {
        let mut migrator = apalis_sqlite::SqliteStorage::<()>::migrations();
        migrator.dangerous_set_table_name("_apalis_migrations");
        migrator
    }

    async fn push_job(connection: &mut Self::Connection, job: NewJob) -> sqlx::Result<()> {
        // A job that is due at once is dated long back: no clock that ever ran ahead makes it wait. Among those the ID decides who is first.
        let run_at = match job.delay {
            None => 1,
            Some(delay) => {
                let now: i64 = sqlx::query_scalar("SELECT CAST(strftime('%s', 'now') AS INTEGER)").fetch_one(&mut *connection).await?;
                now.unsigned_abs().saturating_add(delay.as_secs().max(1))
            }
        };
        let task = task(&job, run_at)?;
        let queue = crate::job::GENERATE_CSR_QUEUE;
        apalis_sqlite::queries::push_tasks(connection, queue, &[task]).await.map_err(|error| match error {
            apalis_sqlite::Error::Database(error) => error,
            other => sqlx::Error::Encode(other.into()),
        })
    }

    statements!();

    fn is_unavailable(error: &dyn DatabaseError) -> bool {
        // The primary result code is the low byte (sqlite.org/rescode.html): busy, locked, read-only, I/O error, full, cannot open.
        let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
        matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)
    }

    fn is_ambiguous(_: &sqlx::Error) -> bool {
        false // in the same process: a commit that returns an error did not happen
    }
}

impl Dialect for Postgres {
    const BEGIN_WRITE: &'static str = "BEGIN";
    const BEGIN_GROUP: &'static str = "BEGIN; SET LOCAL lock_timeout = '200ms'";
    const BEGIN_READ: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    const JOBLESS: &'static str = "SELECT id, job_id FROM custom_csrs WHERE status = 'pending' AND NOT EXISTS \
        (SELECT 1 FROM apalis.jobs WHERE jobs.id = custom_csrs.job_id COLLATE \"default\" AND jobs.status IN ('Pending', 'Queued', 'Running') \
        AND jobs.run_at < now() + interval '2 hours') \
        ORDER BY key_type, job_id LIMIT $1";
    // Jobs by their ID alone, whatever the statistics of a table that changes all the time say: COLLATE fits the index of the IDs, and
    // `|| ''` keeps from the index of all waiting jobs. ARRAY reads the list once, not once a row.
    const TAKE_JOBS: &'static str = "WITH taken AS MATERIALIZED (SELECT job.id FROM custom_csrs \
        CROSS JOIN LATERAL (SELECT jobs.id FROM apalis.jobs WHERE jobs.id = custom_csrs.job_id COLLATE \"default\" \
        AND jobs.status || '' = 'Pending' AND jobs.run_at <= now() FOR UPDATE SKIP LOCKED) AS job \
        WHERE custom_csrs.status = 'pending' AND custom_csrs.key_type = $2 AND custom_csrs.starts = 0 \
        ORDER BY custom_csrs.job_id LIMIT $1 FOR UPDATE OF custom_csrs SKIP LOCKED) \
        DELETE FROM apalis.jobs USING taken WHERE jobs.id = taken.id RETURNING jobs.id";
    const START_ROWS_OF_JOBS: &'static str =
        start_rows_of_jobs!("= ANY (ARRAY(SELECT json_array_elements_text(CAST(CAST($2 AS TEXT) AS json))))");
    const LEASE_POOL_KEY: &'static str = "UPDATE pool_keys SET lease_id = $1, lease_expires_at = CAST(extract(epoch FROM now()) * 1000000 AS BIGINT) + $2 \
        WHERE id = (SELECT id FROM pool_keys \
        WHERE lease_id IS NULL AND master_key_id = $3 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, spki_sha256, sealed_private_key";
    // `pool` in ASCII.
    const POOL_LOCK: Option<&'static str> = Some("SELECT CAST(1 AS BIGINT) AS locked FROM pg_advisory_xact_lock(1886351212)");
    // `mkey` in ASCII.
    const MASTER_KEY_LOCK: Option<&'static str> = Some("SELECT CAST(1 AS BIGINT) AS locked FROM pg_advisory_xact_lock(1835754873)");
    const EMPTY_POOL: Option<&'static str> = None;
    const FIND_CUSTOM_CSRS: &'static str =
        find_custom_csrs!("SELECT pair ->> 0, pair ->> 1 FROM json_array_elements(CAST(CAST($1 AS TEXT) AS json)) AS pair");
    const GROUPS_ACCEPTS: bool = false;
    const CANCEL_JOB: &'static str = "DELETE FROM apalis.jobs WHERE id = $1 AND status = 'Pending'";
    // `sweep` in ASCII, cut to what a number holds.
    const SWEEP_LOCK: Option<&'static str> =
        Some("SELECT CAST(CASE WHEN pg_try_advisory_xact_lock(495874041200) THEN 1 ELSE 0 END AS BIGINT) AS locked");
    const PURGE_JOBS: &'static str = "DELETE FROM apalis.jobs WHERE id IN (SELECT id FROM apalis.jobs \
        WHERE status IN ('Done', 'Failed', 'Killed') AND done_at < to_timestamp(CAST($1 AS BIGINT)) LIMIT $2)";
    const PURGE_WORKERS: &'static str = "DELETE FROM apalis.workers WHERE id IN (SELECT id FROM apalis.workers \
        WHERE last_seen < to_timestamp(CAST($1 AS BIGINT)) AND NOT EXISTS (SELECT 1 FROM apalis.jobs WHERE jobs.lock_by = workers.id) LIMIT $2)";
    const RELEASE_JOBS: Option<&'static str> = None;
    const VITALS: &'static str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS now, \
        (SELECT COUNT(*) FROM apalis.workers WHERE last_seen > now() - make_interval(secs => $1)) AS workers, \
        COUNT(*) AS pending, MIN(created_at) AS oldest, EXISTS (SELECT 1 FROM scopes) AS has_scopes FROM custom_csrs WHERE status = 'pending'";
    const CHECKPOINT: Option<&'static str> = None;

    fn migrations() -> Migrator {
        sqlx::migrate!("../migrations/postgres")
    }

    fn queue_migrations() -> Migrator {
        apalis_postgres::PostgresStorage::<()>::migrations()
    }

    /// What [`apalis_postgres::queries::push_tasks`] does, but for the time, which is the database's: apalis takes a time from its caller,
    /// whose clock may be wrong, and orders jobs by it.
    async fn push_job(connection: &mut Self::Connection, job: NewJob) -> sqlx::Result<()> {
        let payload = serde_json::to_vec(&job.job).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let delay_micros = job.delay.map_or(0, |delay| i64::try_from(delay.as_micros()).unwrap_or(i64::MAX));
        sqlx::query(
            "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority) \
             VALUES ($1, $2, $3, 'Pending', 0, 1, now() + $4 * interval '1 microsecond', 0)",
        )
        .bind(job.id)
        .bind(crate::job::GENERATE_CSR_QUEUE)
        .bind(payload)
        .bind(delay_micros)
        .execute(connection)
        .await
        .map(drop)
    }

    statements!();

    fn is_unavailable(error: &dyn DatabaseError) -> bool {
        // Whatever the reason: the server ended the connection, for example since its transaction was idle for too long.
        let is_ended = error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic));
        // PostgreSQL, appendix A: connection, resources, shutdown; lost races; a read-only standby; a lock or an answer not in time.
        let code = error.code().unwrap_or_default();
        is_ended
            || code.starts_with("08")
            || code.starts_with("53")
            || code.starts_with("57P")
            || matches!(&*code, "40001" | "40P01" | "25006" | "55P03" | "57014")
    }

    fn is_ambiguous(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P")),
            _ => true, // the connection broke, and with it the answer
        }
    }
}

/// apalis' own counter is not consulted: one run a job, and what comes next is for the row to say.
fn task(job: &NewJob, run_at: u64) -> sqlx::Result<apalis::prelude::Task<Vec<u8>>> {
    let payload = serde_json::to_vec(&job.job).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let id = Ulid::from_string(&job.id).map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(TaskBuilder::new(payload).task_id(apalis::prelude::TaskId::from_ulid(id)).max_attempts(1).run_at_timestamp(run_at).build())
}
