//! What a worker takes upon itself at once.

use super::{Dialect, Generation, SqlStore, rows::Reader, signals::Signal, statements as sql, value::values};
use crate::{custom_csr::CustomCsr, ids::CustomCsrId, storage::StoreError};

impl<DB: Dialect> SqlStore<DB> {
    /// See [`super::Store::start_generation`].
    pub(super) async fn start(&self, id: CustomCsrId) -> Result<Option<Generation>, StoreError> {
        let rows = self.write_returning(sql::START_GENERATION, values![id.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).generation()).transpose()
    }

    /// See [`super::Store::start_others`].
    pub(super) async fn take_others(&self, first: &Generation, limit: u32) -> Result<Vec<Generation>, StoreError> {
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
    pub(super) async fn give_others_back(&self, first: &Generation) -> Result<(), StoreError> {
        let mut tx = self.begin_write().await?;
        let mut given_back = 0;
        let CustomCsr { id, request, .. } = &first.custom_csr;
        let values = values![first.job_id.clone(), id.to_string(), request.key_type.as_str()];
        for row in &self.fetch(&mut tx, sql::ROWS_OF_JOB, values).await? {
            given_back += self.requeue(&mut tx, row).await?;
        }
        self.commit(tx).await?;
        if given_back > 0 {
            self.signals.send(Signal::Enqueued);
        }
        Ok(())
    }
}
