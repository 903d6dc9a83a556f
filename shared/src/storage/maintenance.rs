//! Maintenance: sweeping rows whose job is lost, purging what no longer counts, and how the work goes.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Dialect, HANDOVER_KEPT_AFTER, IDEMPOTENCY_KEY_LIFE, Signal, SqlStore, StoreError,
    engine::{Lent, Reader, Sql, Statement, statements, values},
    handovers::PURGE_HANDOVERS,
};
use crate::clock::Timestamp;

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sweep {
    /// Pending rows whose job was gone or dead and that got a new one.
    pub requeued: u64,
}

/// How the work goes, by the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// The database's time.
    pub now: Timestamp,
    /// Workers that make keys and were seen lately.
    pub workers: u64,
    /// Custom CSRs that are pending.
    pub pending: u64,
    /// For how many seconds the oldest of them has been; none: none is.
    pub oldest_pending_secs: Option<u64>,
}

/// What a purge deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purge {
    /// Finished jobs.
    pub jobs: u64,
    /// Workers that are long gone and named by no job.
    pub workers: u64,
    /// Idempotency records that no longer count.
    pub idempotency_keys: u64,
    /// Pool keys whose lease expired.
    pub pool_keys: u64,
    /// Hand-over links that expired long ago.
    pub handovers: u64,
}

/// The part of the storage that is maintenance. Each method is one transaction, as in [`super::Store`], but for the batches of a purge.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Gives every pending row whose job is gone or dead, or dated far ahead by a clock that was wrong, a new job.
    async fn sweep(&self) -> Result<Sweep, StoreError>;

    /// Deletes jobs that ended before `ended_before`, workers that were last seen before `seen_before` and that no job names, and what no
    /// longer counts at `now`, the database's time: idempotency records, pool keys whose lease expired, and hand-over links that expired
    /// more than [`HANDOVER_KEPT_AFTER`] ago; in batches, each a transaction.
    /// One process at a time; to the others there is nothing to do.
    async fn purge(&self, ended_before: Timestamp, seen_before: Timestamp, now: Timestamp) -> Result<Purge, StoreError>;

    /// Gives the jobs of all workers back at once. Only for a process that knows that no other works on this database.
    async fn release_jobs(&self) -> Result<u64, StoreError>;

    /// Counts the workers of a process that ends, whose names have this ID, as gone.
    async fn retire_workers(&self, process_id: &str) -> Result<(), StoreError>;

    /// The database's time, and how the work goes. A worker counts that was seen within `seen_within`.
    async fn vitals(&self, seen_within: Duration) -> Result<Vitals, StoreError>;
}

/// Rows that one transaction of a sweep looks at: a long outage must not make one long transaction.
const SWEEP_BATCH: i64 = 500;
/// Rows that one transaction of a purge deletes: a long one would keep writers waiting, or never come to its end.
const PURGE_BATCH: u64 = 1_000;

statements! {
    /// Lets one process at a time sweep or purge, until the transaction ends: `locked` is 1 if no other does (`sweep` in ASCII, cut to what a
    /// number holds). On SQLite one process alone sweeps.
    LOCK_SWEEP { postgres: "SELECT CAST(CASE WHEN pg_try_advisory_xact_lock(495874041200) THEN 1 ELSE 0 END AS BIGINT) AS locked",
    };
    /// IDs and job IDs of up to `$1` pending rows whose job is gone or dead, or is to wait longer than any job has to: a clock was wrong when
    /// it was made.
    JOBLESS {
        sqlite: "SELECT id, job_id FROM custom_csrs WHERE status = 'pending' AND NOT EXISTS \
            (SELECT 1 FROM Jobs WHERE Jobs.id = custom_csrs.job_id AND Jobs.status IN ('Pending', 'Queued', 'Running') \
            AND Jobs.run_at < CAST(strftime('%s', 'now') AS INTEGER) + 7200) \
            ORDER BY key_type, job_id LIMIT $1",
        postgres: "SELECT id, job_id FROM custom_csrs WHERE status = 'pending' AND NOT EXISTS \
            (SELECT 1 FROM apalis.jobs WHERE jobs.id = custom_csrs.job_id COLLATE \"default\" \
            AND jobs.status IN ('Pending', 'Queued', 'Running') AND jobs.run_at < now() + interval '2 hours') \
            ORDER BY key_type, job_id LIMIT $1",
    };
    /// Deletes up to `$2` jobs that ended before `$1` (seconds since the Unix epoch).
    PURGE_JOBS {
        sqlite: "DELETE FROM Jobs WHERE id IN \
            (SELECT id FROM Jobs WHERE status IN ('Done', 'Failed', 'Killed') AND done_at < $1 LIMIT $2)",
        postgres: "DELETE FROM apalis.jobs WHERE id IN (SELECT id FROM apalis.jobs \
            WHERE status IN ('Done', 'Failed', 'Killed') AND done_at < to_timestamp(CAST($1 AS BIGINT)) LIMIT $2)",
    };
    /// Deletes up to `$2` workers last seen before `$1` (seconds since the Unix epoch) that no job names.
    PURGE_WORKERS {
        sqlite: "DELETE FROM Workers WHERE id IN (SELECT id FROM Workers WHERE last_seen < $1 \
            AND NOT EXISTS (SELECT 1 FROM Jobs WHERE Jobs.lock_by = Workers.id) LIMIT $2)",
        postgres: "DELETE FROM apalis.workers WHERE id IN (SELECT id FROM apalis.workers \
            WHERE last_seen < to_timestamp(CAST($1 AS BIGINT)) \
            AND NOT EXISTS (SELECT 1 FROM apalis.jobs WHERE jobs.lock_by = workers.id) LIMIT $2)",
    };
    PURGE_IDEMPOTENCY_KEYS = "DELETE FROM idempotency_keys WHERE (scope, key_sha256) IN \
        (SELECT scope, key_sha256 FROM idempotency_keys WHERE created_at < $1 LIMIT $2)";
    PURGE_POOL_KEYS = "DELETE FROM pool_keys WHERE id IN (SELECT id FROM pool_keys WHERE lease_expires_at < $1 LIMIT $2)";
    /// Gives back the jobs that workers hold, where one process has all workers.
    RELEASE_JOBS {
        sqlite: "UPDATE Jobs SET status = 'Pending', lock_by = NULL, lock_at = NULL, done_at = NULL WHERE status IN ('Queued', 'Running')",
    };
    /// As if they had not been seen for long: what they hold goes to others at once.
    RETIRE_WORKERS {
        sqlite: "UPDATE Workers SET last_seen = 0 WHERE instr(id, $1) > 0",
        postgres: "UPDATE apalis.workers SET last_seen = to_timestamp(0) WHERE strpos(id, $1) > 0",
    };
    /// The database's clock in microseconds since the Unix epoch (`now`), the workers that make keys seen within the last `$1` seconds (`workers`), the
    /// pending custom CSRs (`pending`) and when the oldest of them was accepted (`oldest`). `has_scopes` is asked for its failure: a database
    /// without that table, or without the right to read it, is not ready.
    VITALS {
        sqlite: "SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 AS now, \
            (SELECT COUNT(*) FROM Workers WHERE last_seen > CAST(strftime('%s', 'now') AS INTEGER) - $1 \
            AND worker_type = 'generate-csr') AS workers, \
            COUNT(*) AS pending, MIN(created_at) AS oldest, EXISTS (SELECT 1 FROM scopes) AS has_scopes \
            FROM custom_csrs WHERE status = 'pending'",
        postgres: "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS now, \
            (SELECT COUNT(*) FROM apalis.workers WHERE last_seen > now() - make_interval(secs => $1) \
            AND worker_type = 'generate-csr') AS workers, \
            COUNT(*) AS pending, MIN(created_at) AS oldest, EXISTS (SELECT 1 FROM scopes) AS has_scopes \
            FROM custom_csrs WHERE status = 'pending'",
    };
}

impl<DB: Dialect> Sql<DB> {
    /// Deletes in batches what the statement says for `bound`, such as what is older; the number of rows. One process at a time does.
    pub(super) async fn purge_batches(&self, statement: Statement, bound: i64) -> Result<u64, StoreError> {
        let mut purged = 0;
        loop {
            let mut tx = self.begin_write().await?;
            if !self.may_sweep(&mut tx).await? {
                return Ok(purged);
            }
            let deleted = self.execute(&mut tx, statement, values![bound, i64::try_from(PURGE_BATCH).unwrap_or(i64::MAX)]).await?;
            self.commit(tx).await?;
            purged += deleted;
            if deleted < PURGE_BATCH {
                return Ok(purged);
            }
        }
    }

    /// Whether no other process sweeps or purges at this moment.
    pub(super) async fn may_sweep(&self, tx: &mut Lent<DB>) -> Result<bool, StoreError> {
        let rows = self.fetch(tx, LOCK_SWEEP, values![]).await?;
        Ok(rows.first().map(|row| Reader::<DB>(row).int("locked")).transpose()? != Some(0))
    }
}

#[async_trait]
impl<DB: Dialect> Maintenance for SqlStore<DB> {
    async fn sweep(&self) -> Result<Sweep, StoreError> {
        let mut requeued = 0;
        loop {
            let mut tx = self.sql.begin_write().await?;
            if !self.sql.may_sweep(&mut tx).await? {
                return Ok(Sweep { requeued });
            }
            let rows = self.sql.fetch(&mut tx, JOBLESS, values![SWEEP_BATCH]).await?;
            requeued += self.sql.requeue(&mut tx, &rows).await?;
            self.sql.commit(tx).await?;
            if !rows.is_empty() {
                self.signals.send(Signal::Enqueued);
            }
            if rows.len() < usize::try_from(SWEEP_BATCH).unwrap_or_default() {
                return Ok(Sweep { requeued });
            }
        }
    }

    async fn purge(&self, ended_before: Timestamp, seen_before: Timestamp, now: Timestamp) -> Result<Purge, StoreError> {
        let jobs = self.sql.purge_batches(PURGE_JOBS, ended_before.secs()).await?;
        let workers = self.sql.purge_batches(PURGE_WORKERS, seen_before.secs()).await?;
        let too_old = now.minus(IDEMPOTENCY_KEY_LIFE).micros();
        let idempotency_keys = self.sql.purge_batches(PURGE_IDEMPOTENCY_KEYS, too_old).await?;
        let pool_keys = self.sql.purge_batches(PURGE_POOL_KEYS, now.micros()).await?;
        let handovers = self.sql.purge_batches(PURGE_HANDOVERS, now.minus(HANDOVER_KEPT_AFTER).micros()).await?;
        Ok(Purge { jobs, workers, idempotency_keys, pool_keys, handovers })
    }

    async fn retire_workers(&self, process_id: &str) -> Result<(), StoreError> {
        self.sql.write(RETIRE_WORKERS, values![process_id]).await.map(drop)
    }

    async fn release_jobs(&self) -> Result<u64, StoreError> {
        self.sql.write(RELEASE_JOBS, values![]).await
    }

    async fn vitals(&self, seen_within: Duration) -> Result<Vitals, StoreError> {
        let rows = self.sql.rows(VITALS, values![i64::try_from(seen_within.as_secs()).unwrap_or(i64::MAX)]).await?;
        let row = Reader::<DB>(rows.first().ok_or_else(|| StoreError::Internal("no row".to_owned()))?);
        let now = Timestamp::from_micros(row.int("now")?);
        let age = |oldest| now.micros().saturating_sub(oldest).max(0).unsigned_abs() / 1_000_000;
        Ok(Vitals {
            now,
            workers: row.int("workers")?.unsigned_abs(),
            pending: row.int("pending")?.unsigned_abs(),
            oldest_pending_secs: row.optional_int("oldest")?.map(age),
        })
    }
}
