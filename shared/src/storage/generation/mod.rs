//! Generation: starting, completing, retrying and failing the making of a key and its CSR.

mod complete;

use std::{iter::once, time::Duration};

use async_trait::async_trait;

pub(super) use self::complete::Completing;
use self::complete::Completion;
#[cfg(test)]
pub(super) use self::complete::STATEMENTS as COMPLETE_STATEMENTS;
use super::{
    Dialect, PoolKey, Signal, SqlStore, StoreError,
    custom_csrs::{columns, is_pending},
    engine::{Lent, Reader, Sql, Statement, Value, given_rows, statements, values},
    jobs::{self, NewJob, WAITING_BESIDE},
};
use crate::{
    clock::Timestamp,
    custom_csr::{CustomCsr, KeyType},
    ids::CustomCsrId,
};

/// A generation that was just started.
#[derive(Debug, Clone)]
pub struct Generation {
    /// What is to be made.
    pub custom_csr: CustomCsr,
    /// Generations of it that ended in an error so far.
    pub attempts: u32,
    /// Generations of it that were started since the last result, this one included.
    pub starts: u32,
    /// The job that it is started for.
    pub job_id: String,
    /// Names the span of the request that asked for it, if that was recorded ([`crate::trace`]).
    pub traceparent: Option<String>,
}

/// What a generation made.
#[derive(Debug, Clone)]
pub struct GeneratedCsr {
    /// The certification request, PEM, with a newline at the end.
    pub csr_pem: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Which master key sealed the private key.
    pub master_key_id: String,
    /// The sealed private key.
    pub sealed_private_key: Vec<u8>,
}

/// What became of what a generation made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionOutcome {
    /// The custom CSR is active. The key pool has its key no more.
    Completed,
    /// Nothing was written: the custom CSR is gone or no longer pending.
    NotPending,
    /// Nothing was written: the lease had expired, and the key was deleted.
    LeaseLost,
    /// Nothing was written: another custom CSR or the key pool has this very key. A key from the key pool is to be discarded.
    KeyInUse,
}

impl CompletionOutcome {
    /// Whether the custom CSR is active with this key.
    #[must_use]
    pub fn is_completed(self) -> bool {
        self == Self::Completed
    }
}

/// The part of the storage that is generation. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait Generations: Send + Sync {
    /// Counts a start of this row, and of others beside it that wait for a key of the same type: as many rows as `most` says for that type,
    /// or none if this one is gone or no longer pending. It comes first, then those that share its job, then others that are due. If the last
    /// job is a shared one, all of its rows are taken, even beyond the limit.
    ///
    /// The jobs of the others are deleted, and the job of the first stands for them: while it exists, no sweep treats them as lost. A row that was
    /// started before without a result stays alone, and the others that its job stood for get jobs of their own again: a row that kills its
    /// worker must not take them with it each time.
    async fn start_generations(&self, id: CustomCsrId, most: fn(KeyType) -> u32) -> Result<Vec<Generation>, StoreError>;

    /// Makes a pending row active, unless its key is in use already. Where it is not completed, the caller wipes what it made.
    async fn complete_generation(&self, id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Result<CompletionOutcome, StoreError>;

    /// Counts one attempt beyond `attempts` and enqueues the next one after `delay`. False where another worker was faster.
    async fn retry_generation(&self, id: CustomCsrId, attempts: u32, delay: Duration, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends a pending row as failed, for this reason, which its tenant reads. False where it is gone or no longer pending.
    async fn fail_generation(&self, id: CustomCsrId, reason: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Takes a start back that ended without a result through no fault of the row's, and leaves the row to the sweep.
    async fn forget_start(&self, id: CustomCsrId) -> Result<(), StoreError>;

    /// Takes a start back like [`Generations::forget_start`] and enqueues the next one after `delay`; with none, workers are woken
    /// at once. Rows that wait for the same job get jobs of their own. False if the row is gone or no longer pending.
    async fn defer_generation(&self, id: CustomCsrId, delay: Duration) -> Result<bool, StoreError>;

    /// Makes a pending row active with a key from the key pool, which leaves the key pool: both or nothing.
    async fn complete_pooled(
        &self,
        id: CustomCsrId,
        made: &GeneratedCsr,
        key: &PoolKey,
        now: Timestamp,
    ) -> Result<CompletionOutcome, StoreError>;
}

/// Starts the rows of the jobs whose IDs are in the JSON array `$2`, which wait for a key of type `$3` and were not started yet, and gives
/// them job `$1`.
macro_rules! start_rows_of_jobs {
    ($is_one_of_the_ids:literal $lock:literal) => {
        concat!(
            "UPDATE custom_csrs SET starts = starts + 1, job_id = $1 WHERE id IN \
             (SELECT id FROM custom_csrs WHERE status = 'pending' AND starts = 0 AND key_type = $3 AND job_id ",
            $is_one_of_the_ids,
            $lock,
            ") RETURNING ",
            columns!(),
            ", CAST(NULL AS TEXT) AS certificate_ids, attempts, starts, job_id, traceparent"
        )
    };
}

statements! {
    START_GENERATION = concat!(
        "UPDATE custom_csrs SET starts = starts + 1 WHERE id = $1 AND ",
        is_pending!(),
        " RETURNING ",
        columns!(),
        ", CAST(NULL AS TEXT) AS certificate_ids, attempts, starts, job_id, traceparent"
    );
    /// Takes up to `$1` jobs out of the queue that wait for a key of type `$2`, were not started yet and are due by the database's clock;
    /// their IDs. What others are busy with is passed over.
    ///
    /// On SQLite, CROSS JOIN keeps to the order of the tables, and so to the index of pending rows. On PostgreSQL, jobs are found by their ID
    /// alone, whatever the statistics of a table that changes all the time say: COLLATE fits the index of the IDs, and `|| ''` keeps from the
    /// index of all waiting jobs.
    TAKE_JOBS {
        sqlite: "DELETE FROM Jobs WHERE id IN (SELECT Jobs.id FROM custom_csrs CROSS JOIN Jobs \
            WHERE Jobs.id = custom_csrs.job_id AND custom_csrs.status = 'pending' AND custom_csrs.key_type = $2 AND custom_csrs.starts = 0 \
            AND Jobs.status = 'Pending' AND Jobs.run_at <= CAST(strftime('%s', 'now') AS INTEGER) \
            ORDER BY custom_csrs.job_id LIMIT $1) RETURNING id",
        postgres: "WITH taken AS MATERIALIZED (SELECT job.id FROM custom_csrs \
            CROSS JOIN LATERAL (SELECT jobs.id FROM apalis.jobs WHERE jobs.id = custom_csrs.job_id COLLATE \"default\" \
            AND jobs.status || '' = 'Pending' AND jobs.run_at <= now() FOR UPDATE SKIP LOCKED) AS job \
            WHERE custom_csrs.status = 'pending' AND custom_csrs.key_type = $2 AND custom_csrs.starts = 0 \
            ORDER BY custom_csrs.job_id LIMIT $1 FOR UPDATE OF custom_csrs SKIP LOCKED) \
            DELETE FROM apalis.jobs USING taken WHERE jobs.id = taken.id RETURNING jobs.id",
    };
    /// On PostgreSQL, ARRAY reads the list once, not once a row.
    START_ROWS_OF_JOBS {
        sqlite: start_rows_of_jobs!("IN (SELECT value FROM json_each($2))" ""),
        postgres: start_rows_of_jobs!("= ANY (ARRAY(SELECT json_array_elements_text(CAST(CAST($2 AS TEXT) AS json))))"
            " ORDER BY id FOR NO KEY UPDATE SKIP LOCKED"),
    };
    /// The other rows, of key type `$3`, that job `$1` stood for.
    ROWS_OF_JOB = "SELECT id, job_id FROM custom_csrs WHERE status = 'pending' AND key_type = $3 AND job_id = $1 AND id <> $2";
    /// Only the first of two workers that saw the same number of attempts counts one more.
    RETRY_GENERATION = concat!(
        "UPDATE custom_csrs SET attempts = attempts + 1, starts = 0, job_id = $3, updated_at = $4 WHERE id = $1 AND attempts = $2 AND ",
        is_pending!()
    );
    FAIL_GENERATION = concat!("UPDATE custom_csrs SET status = 'failed', error = $2, updated_at = $3 WHERE id = $1 AND ", is_pending!());
    /// A start that ended without a result through no fault of the row's does not count.
    FORGET_START = concat!("UPDATE custom_csrs SET starts = starts - 1 WHERE id = $1 AND starts > 0 AND ", is_pending!());
    /// Likewise, and job `$2` is to wake a worker for it again.
    DEFER_GENERATION = concat!(
        "UPDATE custom_csrs SET starts = CASE WHEN starts > 0 THEN starts - 1 ELSE 0 END, job_id = $2 WHERE id = $1 AND ",
        is_pending!()
    );
}

impl<DB: Dialect> Reader<'_, DB> {
    fn generation(&self) -> Result<Generation, StoreError> {
        let (attempts, starts) = (self.count("attempts")?, self.count("starts")?);
        let (job_id, traceparent) = (self.text("job_id")?, self.optional_text("traceparent")?);
        Ok(Generation { custom_csr: self.custom_csr()?, attempts, starts, job_id, traceparent })
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Starts up to `limit` rows beside this one, or a few more: see [`Generations::start_generations`].
    async fn start_others(&self, tx: &mut Lent<DB>, first: &Generation, limit: u32) -> Result<Vec<Generation>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let key_type = first.custom_csr.request.key_type;
        // Those that were accepted with it share its job.
        let mut rows = if jobs::are_shared(key_type) { self.start_rows_of(tx, first, &[&first.job_id]).await? } else { Vec::new() };
        let room = i64::from(limit) - i64::try_from(rows.len()).unwrap_or(i64::MAX);
        if room > 0 {
            let taken = self.fetch(tx, TAKE_JOBS, values![room, key_type.as_str()]).await?;
            let jobs = taken.iter().map(|row| Reader::<DB>(row).text("id")).collect::<Result<Vec<_>, _>>()?;
            if !jobs.is_empty() {
                rows.extend(self.start_rows_of(tx, first, &jobs).await?);
            }
        }
        // One that cannot be read is left to the sweep, which gives it a job of its own; the others need not suffer for it.
        let readable = |error: &StoreError| tracing::error!(%error, "a pending custom CSR cannot be read");
        Ok(rows.iter().filter_map(|row| Reader::<DB>(row).generation().inspect_err(readable).ok()).collect())
    }

    async fn start_rows_of(
        &self,
        tx: &mut Lent<DB>,
        first: &Generation,
        jobs: &[impl serde::Serialize],
    ) -> Result<Vec<DB::Row>, StoreError> {
        let key_type = first.custom_csr.request.key_type.as_str();
        self.fetch(tx, START_ROWS_OF_JOBS, values![first.job_id.clone(), given_rows(jobs)?, key_type]).await
    }

    /// Gives jobs of their own to the other rows that the job of `first` stands for, and returns how many there were.
    async fn give_others_back(&self, tx: &mut Lent<DB>, first: &Generation) -> Result<u64, StoreError> {
        let CustomCsr { id, request, .. } = &first.custom_csr;
        let values = values![first.job_id.clone(), id.to_string(), request.key_type.as_str()];
        let rows = self.fetch(tx, ROWS_OF_JOB, values).await?;
        self.requeue(tx, &rows).await
    }
}

#[async_trait]
impl<DB: Dialect> Generations for SqlStore<DB> {
    async fn start_generations(&self, id: CustomCsrId, most: fn(KeyType) -> u32) -> Result<Vec<Generation>, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        let rows = self.sql.fetch(&mut tx, START_GENERATION, values![id.to_string()]).await?;
        let Some(row) = rows.first() else { return Ok(Vec::new()) };
        let first = Reader::<DB>(row).generation()?;
        let (mut others, mut given_back) = (Vec::new(), 0);
        if first.starts == 1 {
            others = self.sql.start_others(&mut tx, &first, most(first.custom_csr.request.key_type).saturating_sub(1)).await?;
        } else {
            given_back = self.sql.give_others_back(&mut tx, &first).await?;
        }
        self.sql.commit(tx).await?;
        if given_back > 0 {
            self.signals.send(Signal::Enqueued);
        }
        Ok(once(first).chain(others).collect())
    }

    async fn complete_generation(&self, id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Result<CompletionOutcome, StoreError> {
        self.completing.ask(Completion { id, made: made.clone(), pool_key: None, now }).await
    }

    async fn complete_pooled(
        &self,
        id: CustomCsrId,
        made: &GeneratedCsr,
        key: &PoolKey,
        now: Timestamp,
    ) -> Result<CompletionOutcome, StoreError> {
        self.completing.ask(Completion { id, made: made.clone(), pool_key: Some(key.clone()), now }).await
    }

    async fn retry_generation(&self, id: CustomCsrId, attempts: u32, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        let job = NewJob::new(id)?;
        self.enqueue(RETRY_GENERATION, values![id.to_string(), i64::from(attempts), job.id.clone(), now.micros()], job, delay).await
    }

    async fn fail_generation(&self, id: CustomCsrId, reason: &str, now: Timestamp) -> Result<bool, StoreError> {
        let failed = self.sql.write(FAIL_GENERATION, values![id.to_string(), reason, now.micros()]).await? > 0;
        self.signals.send(Signal::Changed(id));
        Ok(failed)
    }

    async fn forget_start(&self, id: CustomCsrId) -> Result<(), StoreError> {
        self.sql.write(FORGET_START, values![id.to_string()]).await.map(drop)
    }

    async fn defer_generation(&self, id: CustomCsrId, delay: Duration) -> Result<bool, StoreError> {
        let job = NewJob::new(id)?;
        let mut tx = self.sql.begin_write().await?;
        let others = self.sql.fetch(&mut tx, WAITING_BESIDE, values![id.to_string()]).await?;
        let deferred = self.sql.execute(&mut tx, DEFER_GENERATION, values![id.to_string(), job.id.clone()]).await? > 0;
        if !deferred && others.is_empty() {
            return Ok(false);
        }
        if deferred {
            self.sql.push(&mut tx, &[job], delay).await?;
        }
        self.sql.requeue(&mut tx, &others).await?;
        self.sql.commit(tx).await?;
        if delay.is_zero() {
            self.signals.send(Signal::Enqueued);
        }
        Ok(deferred)
    }
}

impl<DB: Dialect> SqlStore<DB> {
    /// Changes a pending row and enqueues its next job; false if the statement found none to change.
    async fn enqueue(&self, statement: Statement, values: Vec<Value>, job: NewJob, delay: Duration) -> Result<bool, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, statement, values).await? == 0 {
            return Ok(false);
        }
        self.sql.push(&mut tx, &[job], delay).await?;
        self.sql.commit(tx).await?;
        Ok(true)
    }
}
