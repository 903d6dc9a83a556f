//! Generation: from a pending custom CSR to an active or a failed one, and the jobs that wake workers for it.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    custom_csrs::columns::csr_columns,
    dialect::NewJob,
    group_commit::{Write, Written},
    lent::Lent,
    row::Reader,
    signals::Signal,
    value::{Value, values},
};
use crate::{clock::Timestamp, custom_csr::CustomCsr, ids::CustomCsrId, job::GenerateCsrJob};

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

/// What workers do. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait Generations: Send + Sync {
    /// Counts a start of this row and tells what to make; none where it is gone or no longer pending.
    async fn start_generation(&self, id: CustomCsrId) -> Result<Option<Generation>, StoreError>;

    /// Starts up to `limit` rows more beside one: others that wait for a key of the same type and are due.
    ///
    /// Their own jobs go, and the job of `first` stands for them: while it lives, no sweep takes them for lost. A row that was started
    /// before without a result stays alone, and the others that its job stood for get jobs of their own again: one that kills its worker
    /// is not to take them with it time and again.
    async fn start_others(&self, first: &Generation, limit: u32) -> Result<Vec<Generation>, StoreError>;

    /// Makes a pending row active. False where it is gone or no longer pending: the caller wipes what it made.
    async fn complete_generation(&self, id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Result<bool, StoreError>;

    /// Counts one attempt beyond `attempts` and enqueues the next one after `delay`. False where another worker was faster.
    async fn retry_generation(&self, id: CustomCsrId, attempts: u32, delay: Duration, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends a pending row as failed, for this reason, which its tenant reads. False where it is gone or no longer pending.
    async fn fail_generation(&self, id: CustomCsrId, reason: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Takes a start back that ended without a result through no fault of the row's, and leaves the row to the sweep.
    async fn forget_start(&self, id: CustomCsrId) -> Result<(), StoreError>;

    /// Takes a start back like [`Generations::forget_start`] and enqueues the next one after `delay`; with none, workers are woken
    /// at once. False if the row is gone or no longer pending.
    async fn defer_generation(&self, id: CustomCsrId, delay: Duration) -> Result<bool, StoreError>;
}

pub(in crate::storage) const START_GENERATION: &str = concat!(
    "UPDATE custom_csrs SET starts = starts + 1 WHERE id = $1 AND status = 'pending' RETURNING ",
    csr_columns!(),
    ", CAST(NULL AS TEXT) AS certificate_ids, attempts, starts, job_id"
);
/// The other rows, of key type `$3`, that job `$1` stood for.
pub(in crate::storage) const ROWS_OF_JOB: &str =
    "SELECT id, job_id FROM custom_csrs WHERE status = 'pending' AND key_type = $3 AND job_id = $1 AND id <> $2";
pub(in crate::storage) const COMPLETE_GENERATION: &str = "UPDATE custom_csrs SET status = 'active', csr_pem = $2, spki_sha256 = $3, \
    master_key_id = $4, sealed_private_key = $5, updated_at = $6 WHERE id = $1 AND status = 'pending'";
/// Only the first of two workers that saw the same number of attempts counts one more.
pub(in crate::storage) const RETRY_GENERATION: &str = "UPDATE custom_csrs SET attempts = attempts + 1, starts = 0, job_id = $3, updated_at = $4 \
    WHERE id = $1 AND status = 'pending' AND attempts = $2";
pub(in crate::storage) const FAIL_GENERATION: &str =
    "UPDATE custom_csrs SET status = 'failed', error = $2, updated_at = $3 WHERE id = $1 AND status = 'pending'";
/// A start that ended without a result through no fault of the row's does not count.
pub(in crate::storage) const FORGET_START: &str =
    "UPDATE custom_csrs SET starts = starts - 1 WHERE id = $1 AND status = 'pending' AND starts > 0";
/// Likewise, and job `$2` is to wake a worker for it again.
pub(in crate::storage) const DEFER_GENERATION: &str = "UPDATE custom_csrs SET starts = CASE WHEN starts > 0 THEN starts - 1 ELSE 0 END, job_id = $2 \
    WHERE id = $1 AND status = 'pending'";
pub(in crate::storage) const REPLACE_JOB: &str = "UPDATE custom_csrs SET job_id = $2 WHERE id = $1 AND status = 'pending' AND job_id = $3";

/// All of the above, for the test that prepares them.
#[cfg(test)]
pub(in crate::storage) const ALL: &[&str] =
    &[START_GENERATION, ROWS_OF_JOB, COMPLETE_GENERATION, RETRY_GENERATION, FAIL_GENERATION, FORGET_START, DEFER_GENERATION, REPLACE_JOB];

impl<DB: Dialect> Reader<'_, DB> {
    pub(in crate::storage) fn generation(&self) -> Result<Generation, StoreError> {
        let (attempts, starts) = (self.count("attempts")?, self.count("starts")?);
        Ok(Generation { custom_csr: self.custom_csr()?, attempts, starts, job_id: self.text("job_id")? })
    }
}

#[async_trait]
impl<DB: Dialect> Generations for SqlStore<DB> {
    async fn start_generation(&self, id: CustomCsrId) -> Result<Option<Generation>, StoreError> {
        self.start(id).await
    }

    async fn start_others(&self, first: &Generation, limit: u32) -> Result<Vec<Generation>, StoreError> {
        if first.starts == 1 {
            return self.take_others(first, limit).await;
        }
        self.give_others_back(first).await.map(|()| Vec::new())
    }

    async fn complete_generation(&self, id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Result<bool, StoreError> {
        self.write_grouped(Write::Complete(id, made.clone(), now)).await.and_then(Written::completed)
    }

    async fn retry_generation(&self, id: CustomCsrId, attempts: u32, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        let job = NewJob::new(GenerateCsrJob::new(id)).after(delay);
        let values = values![id.to_string(), i64::from(attempts), job.id.clone(), now.micros()];
        if self.execute(&mut tx, RETRY_GENERATION, values).await? == 0 {
            return Ok(false);
        }
        self.push(&mut tx, job).await?;
        self.commit(tx).await?;
        Ok(true)
    }

    async fn fail_generation(&self, id: CustomCsrId, reason: &str, now: Timestamp) -> Result<bool, StoreError> {
        let failed = self.write(FAIL_GENERATION, values![id.to_string(), reason, now.micros()]).await? > 0;
        self.signals.send(Signal::Changed(id));
        Ok(failed)
    }

    async fn forget_start(&self, id: CustomCsrId) -> Result<(), StoreError> {
        self.write(FORGET_START, values![id.to_string()]).await.map(drop)
    }

    async fn defer_generation(&self, id: CustomCsrId, delay: Duration) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        let job = NewJob::new(GenerateCsrJob::new(id));
        let job = if delay.is_zero() { job } else { job.after(delay) };
        if self.execute(&mut tx, DEFER_GENERATION, values![id.to_string(), job.id.clone()]).await? == 0 {
            return Ok(false);
        }
        self.push(&mut tx, job).await?;
        self.commit(tx).await?;
        if delay.is_zero() {
            self.signals.send(Signal::Enqueued);
        }
        Ok(true)
    }
}

impl<DB: Dialect> SqlStore<DB> {
    /// See [`Generations::start_generation`].
    pub(in crate::storage) async fn start(&self, id: CustomCsrId) -> Result<Option<Generation>, StoreError> {
        let rows = self.write_returning(START_GENERATION, values![id.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).generation()).transpose()
    }

    /// See [`Generations::start_others`].
    pub(in crate::storage) async fn take_others(&self, first: &Generation, limit: u32) -> Result<Vec<Generation>, StoreError> {
        let key_type = first.custom_csr.request.key_type.as_str();
        let mut tx = self.begin_write().await?;
        let taken = self.fetch(&mut tx, DB::TAKE_JOBS, values![i64::from(limit), key_type]).await?;
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let jobs = taken.iter().map(|row| Reader::<DB>(row).text("id")).collect::<Result<Vec<_>, _>>()?;
        let jobs = serde_json::to_string(&jobs).map_err(|error| StoreError::Internal(error.to_string()))?;
        let rows = self.fetch(&mut tx, DB::START_ROWS_OF_JOBS, values![first.job_id.clone(), jobs, key_type]).await?;
        // One that cannot be read is left to the sweep, which gives it a job of its own; the others need not suffer for it.
        let readable = |error: &StoreError| tracing::error!(%error, "a pending custom CSR cannot be read");
        let started = rows.iter().filter_map(|row| Reader::<DB>(row).generation().inspect_err(readable).ok()).collect();
        self.commit(tx).await?;
        Ok(started)
    }

    /// Gives the other rows that the job of `first` stood for jobs of their own again.
    pub(in crate::storage) async fn give_others_back(&self, first: &Generation) -> Result<(), StoreError> {
        let mut tx = self.begin_write().await?;
        let mut given_back = 0;
        let CustomCsr { id, request, .. } = &first.custom_csr;
        let values = values![first.job_id.clone(), id.to_string(), request.key_type.as_str()];
        for row in &self.fetch(&mut tx, ROWS_OF_JOB, values).await? {
            given_back += self.requeue(&mut tx, row).await?;
        }
        self.commit(tx).await?;
        if given_back > 0 {
            self.signals.send(Signal::Enqueued);
        }
        Ok(())
    }
}

impl<DB: Dialect> SqlStore<DB> {
    /// Gives one pending row a new job, unless someone else just did.
    pub(in crate::storage) async fn requeue(&self, tx: &mut Lent<DB>, row: &DB::Row) -> Result<u64, StoreError> {
        let row = Reader::<DB>(row);
        let id = row.custom_csr_id()?;
        let job = NewJob::new(GenerateCsrJob::new(id));
        let replaced = self.execute(tx, REPLACE_JOB, values![id.to_string(), job.id.clone(), row.text("job_id")?]).await?;
        if replaced > 0 {
            self.push(tx, job).await?;
        }
        Ok(replaced)
    }
}

/// The parameters of the statement that makes a custom CSR active.
pub(in crate::storage) fn complete_values(id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Vec<Value> {
    values![
        id.to_string(),
        made.csr_pem.clone(),
        made.spki_sha256.to_vec(),
        made.master_key_id.clone(),
        made.sealed_private_key.clone(),
        now.micros(),
    ]
}
