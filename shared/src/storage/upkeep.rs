//! What keeps the queue in order: the steps of sweep and purge.

use super::{Dialect, SqlStore, dialect::NewJob, lent::Lent, rows::Reader, statements as sql, value::values};
use crate::{job::GenerateCsrJob, storage::StoreError};

/// Rows that one transaction of a purge deletes: a long one would keep writers waiting, or never come to its end.
const PURGE_BATCH: u64 = 1_000;

impl<DB: Dialect> SqlStore<DB> {
    /// Deletes in batches what is older than `before`, in what the statement counts in; the number of rows.
    pub(super) async fn purge_batches(&self, statement: &'static str, before: i64) -> Result<u64, StoreError> {
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
    pub(super) async fn may_sweep(&self, tx: &mut Lent<DB>) -> Result<bool, StoreError> {
        let Some(lock) = DB::SWEEP_LOCK else { return Ok(true) };
        let rows = self.fetch(tx, lock, values![]).await?;
        Ok(rows.first().map(|row| Reader::<DB>(row).int("locked")).transpose()? == Some(1))
    }

    /// Gives one pending row a new job, unless someone else just did.
    pub(super) async fn requeue(&self, tx: &mut Lent<DB>, row: &DB::Row) -> Result<u64, StoreError> {
        let row = Reader::<DB>(row);
        let id = row.custom_csr_id()?;
        let job = NewJob::new(GenerateCsrJob::new(id));
        let replaced = self.execute(tx, sql::REPLACE_JOB, values![id.to_string(), job.id.clone(), row.text("job_id")?]).await?;
        if replaced > 0 {
            self.push(tx, job).await?;
        }
        Ok(replaced)
    }
}
