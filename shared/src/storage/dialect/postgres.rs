//! What PostgreSQL alone understands.

use sqlx::{
    Executor, Postgres, Row,
    error::DatabaseError,
    migrate::Migrator,
    postgres::{PgDatabaseError, PgSeverity},
};

use super::{Dialect, NewJob, arguments};
use crate::storage::{
    custom_csrs::columns::{find_custom_csrs, start_rows_of_jobs},
    value::Value,
};

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
