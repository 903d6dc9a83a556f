//! Maintenance: jobs that are gone are made again, what no longer counts is deleted, and how the work goes is told.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    custom_csrs::{IDEMPOTENCY_KEY_LIFE, PURGE_IDEMPOTENCY_KEYS},
    key_pool::PURGE_POOL_KEYS,
    lent::Lent,
    row::Reader,
    signals::Signal,
    value::values,
};
use crate::clock::Timestamp;

/// Rows that one transaction of a sweep looks at: a long outage must not make one long transaction.
const SWEEP_BATCH: i64 = 500;

/// Rows that one transaction of a purge deletes: a long one would keep writers waiting, or never come to its end.
const PURGE_BATCH: u64 = 1_000;

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
    /// Workers that were seen lately.
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
}

/// What keeps the queue and the tables in order. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Gives every pending row whose job is gone or dead, or dated far ahead by a clock that was wrong, a new job.
    async fn sweep(&self) -> Result<Sweep, StoreError>;

    /// Deletes jobs that ended before `ended_before`, workers that were last seen before `seen_before` and that no job names, and what no
    /// longer counts at `now`, the database's time: idempotency records, and pool keys whose lease expired; in batches, each a transaction.
    /// One process at a time; to the others there is nothing to do.
    async fn purge(&self, ended_before: Timestamp, seen_before: Timestamp, now: Timestamp) -> Result<Purge, StoreError>;

    /// Gives the jobs of all workers back at once. Only for a process that knows that no other works on this database.
    async fn release_jobs(&self) -> Result<u64, StoreError>;

    /// The database's time, and how the work goes. A worker counts that was seen within `seen_within`.
    async fn vitals(&self, seen_within: Duration) -> Result<Vitals, StoreError>;
}

#[async_trait]
impl<DB: Dialect> Maintenance for SqlStore<DB> {
    async fn sweep(&self) -> Result<Sweep, StoreError> {
        let mut requeued = 0;
        loop {
            let mut tx = self.begin_write().await?;
            if !self.may_sweep(&mut tx).await? {
                return Ok(Sweep { requeued });
            }
            let rows = self.fetch(&mut tx, DB::JOBLESS, values![SWEEP_BATCH]).await?;
            for row in &rows {
                requeued += self.requeue(&mut tx, row).await?;
            }
            self.commit(tx).await?;
            if !rows.is_empty() {
                self.signals.send(Signal::Enqueued);
            }
            if rows.len() < usize::try_from(SWEEP_BATCH).unwrap_or_default() {
                return Ok(Sweep { requeued });
            }
        }
    }

    async fn purge(&self, ended_before: Timestamp, seen_before: Timestamp, now: Timestamp) -> Result<Purge, StoreError> {
        let jobs = self.purge_batches(DB::PURGE_JOBS, ended_before.secs()).await?;
        let workers = self.purge_batches(DB::PURGE_WORKERS, seen_before.secs()).await?;
        let too_old = now.minus(IDEMPOTENCY_KEY_LIFE).micros();
        let idempotency_keys = self.purge_batches(PURGE_IDEMPOTENCY_KEYS, too_old).await?;
        let pool_keys = self.purge_batches(PURGE_POOL_KEYS, now.micros()).await?;
        Ok(Purge { jobs, workers, idempotency_keys, pool_keys })
    }

    async fn release_jobs(&self) -> Result<u64, StoreError> {
        match DB::RELEASE_JOBS {
            Some(release) => self.write(release, values![]).await,
            None => Ok(0),
        }
    }

    async fn vitals(&self, seen_within: Duration) -> Result<Vitals, StoreError> {
        let rows = self.rows(DB::VITALS, values![i64::try_from(seen_within.as_secs()).unwrap_or(i64::MAX)]).await?;
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

impl<DB: Dialect> SqlStore<DB> {
    /// Deletes in batches what is older than `before`, in what the statement counts in; the number of rows.
    pub(in crate::storage) async fn purge_batches(&self, statement: &'static str, before: i64) -> Result<u64, StoreError> {
        let mut purged = 0;
        loop {
            let mut tx = self.begin_write().await?;
            if !self.may_sweep(&mut tx).await? {
                return Ok(purged);
            }
            let deleted = self.execute(&mut tx, statement, values![before, i64::try_from(PURGE_BATCH).unwrap_or(i64::MAX)]).await?;
            self.commit(tx).await?;
            purged += deleted;
            if deleted < PURGE_BATCH {
                return Ok(purged);
            }
        }
    }

    /// Whether no other process sweeps or purges at this moment.
    pub(in crate::storage) async fn may_sweep(&self, tx: &mut Lent<DB>) -> Result<bool, StoreError> {
        let Some(lock) = DB::SWEEP_LOCK else { return Ok(true) };
        let rows = self.fetch(tx, lock, values![]).await?;
        Ok(rows.first().map(|row| Reader::<DB>(row).int("locked")).transpose()? == Some(1))
    }
}
