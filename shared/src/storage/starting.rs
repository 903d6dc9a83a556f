//! What a worker takes upon itself at once.

use sqlx::Transaction;

use super::{Dialect, Generation, SqlStore, rows::Reader, signals::Signal, statements as sql, value::values};
use crate::{clock::Timestamp, error::StoreError, ids::CustomCsrId, model::KeyType};

impl<DB: Dialect> SqlStore<DB> {
    /// See [`super::Store::start_generations`].
    pub(super) async fn start(&self, id: CustomCsrId, limit: u32, now: Timestamp) -> Result<Vec<Generation>, StoreError> {
        let mut tx = self.begin_write().await?;
        let rows = self.fetch(&mut tx, sql::START_GENERATION, values![id.to_string()]).await?;
        let Some(row) = rows.first().map(Reader::<DB>) else { return Ok(Vec::new()) };
        let (first, job_id) = (row.generation()?, row.text("job_id")?);
        let (alone, quick) = (first.starts > 1, first.custom_csr.request.key_type == KeyType::P256v1);
        let mut started = vec![first];
        let mut given_back = 0;
        if alone {
            for row in &self.fetch(&mut tx, sql::ROWS_OF_JOB, values![job_id, id.to_string()]).await? {
                given_back += self.requeue(&mut tx, row, now).await?;
            }
        } else if quick && limit > 1 {
            started.extend(self.start_others(&mut tx, &job_id, limit - 1, now).await?);
        }
        self.commit(tx).await?;
        if given_back > 0 {
            self.signals.send(Signal::Enqueued);
        }
        Ok(started)
    }

    async fn start_others(
        &self,
        tx: &mut Transaction<'static, DB>,
        job_id: &str,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Generation>, StoreError> {
        let taken = self.fetch(tx, DB::TAKE_JOBS, values![now.secs(), i64::from(limit)]).await?;
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let jobs = taken.iter().map(|row| Reader::<DB>(row).text("id")).collect::<Result<Vec<_>, _>>()?;
        let jobs = serde_json::to_string(&jobs).map_err(|error| StoreError::Internal(error.to_string()))?;
        let rows = self.fetch(tx, DB::START_ROWS_OF_JOBS, values![job_id, jobs]).await?;
        rows.iter().map(|row| Reader::<DB>(row).generation()).collect()
    }
}
