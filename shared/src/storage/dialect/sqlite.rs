//! What SQLite alone understands.

use apalis::prelude::TaskBuilder;
use sqlx::{Executor, Row, Sqlite, error::DatabaseError, migrate::Migrator};
use ulid::Ulid;

use super::{Dialect, NewJob, arguments};
use crate::storage::{
    custom_csrs::columns::{find_custom_csrs, start_rows_of_jobs},
    value::Value,
};

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

/// apalis' own counter is not consulted: one run a job, and what comes next is for the row to say.
fn task(job: &NewJob, run_at: u64) -> sqlx::Result<apalis::prelude::Task<Vec<u8>>> {
    let payload = serde_json::to_vec(&job.job).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let id = Ulid::from_string(&job.id).map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(TaskBuilder::new(payload).task_id(apalis::prelude::TaskId::from_ulid(id)).max_attempts(1).run_at_timestamp(run_at).build())
}
