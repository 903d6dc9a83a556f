//! Jobs in the queue, each of which wakes a worker for one pending custom CSR: enqueued, replaced and taken back with the rows that they are for.

use std::time::Duration;

use ulid::Ulid;

use super::{
    Dialect, StoreError,
    custom_csrs::read::is_pending,
    engine::{Lent, Reader, Sql, given_rows, statements, values},
};
use crate::{
    custom_csr::KeyType,
    ids::{CustomCsrId, IncidentId, WebhookId},
    job::{DeliverJob, GENERATE_CSR_QUEUE, GenerateCsrJob, IncidentJob},
};

/// Enqueues the jobs `$jobs` of the queue `$queue`, due after `$delay` microseconds by the database's clock. apalis' own statement takes the time
/// from its caller, whose clock may be wrong. A job that is due at once is dated long back on SQLite: no clock that ever ran ahead makes it wait.
macro_rules! push_jobs {
    (sqlite $jobs:literal $queue:literal $delay:literal) => {
        concat!(
            "INSERT INTO Jobs (id, job, job_type, status, attempts, max_attempts, run_at, priority, metadata) \
             SELECT id, CAST(job AS BLOB), ", $queue, ", 'Pending', 0, 1, CASE WHEN ", $delay, " = 0 THEN 1 \
             ELSE CAST(strftime('%s', 'now') AS INTEGER) + MAX(", $delay, " / 1000000, 1) END, 0, '{}' FROM ",
            $crate::storage::engine::given!(sqlite $jobs: id TEXT, job TEXT)
        )
    };
    (postgres $jobs:literal $queue:literal $delay:literal) => {
        concat!(
            "INSERT INTO apalis.jobs (id, job, job_type, status, attempts, max_attempts, run_at, priority) \
             SELECT id, convert_to(job, 'UTF8'), ", $queue, ", 'Pending', 0, 1, now() + CAST(", $delay, " AS BIGINT) * interval '1 microsecond', 0 FROM ",
            $crate::storage::engine::given!(postgres $jobs: id TEXT, job TEXT)
        )
    };
}

pub(in crate::storage) use push_jobs;

statements! {
    pub(super) PUSH_JOBS { sqlite: push_jobs!(sqlite "$1" "$2" "$3"), postgres: push_jobs!(postgres "$1" "$2" "$3"),
    };
    /// Deletes a job if no worker has it yet; one that has it finds nothing to do.
    CANCEL_JOB { sqlite: "DELETE FROM Jobs WHERE id = $1 AND status = 'Pending'",
        postgres: "DELETE FROM apalis.jobs WHERE id = $1 AND status = 'Pending'",
    };
    /// The rows beside `$1` that wait for the same job.
    pub(super) WAITING_BESIDE = "SELECT others.id, others.job_id FROM custom_csrs AS this JOIN custom_csrs AS others \
        ON others.status = 'pending' AND others.key_type = this.key_type AND others.job_id = this.job_id \
        WHERE this.id = $1 AND others.id <> $1 AND others.starts = 0";
    /// Unless someone else just did. A row that another transaction has is passed over: it is being deleted or made, or the sweep finds it. Whoever
    /// waited for it, and has one that the other waits for, would wait for ever: those that share a job may all be deleted at the same time.
    REPLACE_JOB {
        sqlite: concat!("UPDATE custom_csrs SET job_id = $2 WHERE id = $1 AND job_id = $3 AND ", is_pending!()),
        postgres: concat!("UPDATE custom_csrs SET job_id = $2 WHERE id = (SELECT id FROM custom_csrs WHERE id = $1 AND job_id = $3 AND ",
            is_pending!(), " FOR NO KEY UPDATE SKIP LOCKED)"),
    };
}

/// Whether rows that are accepted together share a job: where a key is made in no time, enqueuing a job costs more than the key. One that
/// takes long has a job of its own, so that whichever process is free makes it.
pub(super) const fn are_shared(key_type: KeyType) -> bool {
    !key_type.takes_long()
}

/// A job to enqueue.
#[derive(Debug, serde::Serialize)]
pub(super) struct NewJob {
    pub id: String,
    job: String,
}

impl NewJob {
    /// A job with a fresh ID that wakes a worker for this custom CSR.
    pub fn new(id: CustomCsrId) -> Result<Self, StoreError> {
        let job = serde_json::to_string(&GenerateCsrJob::new(id)).map_err(|error| StoreError::Internal(error.to_string()))?;
        Ok(Self { id: Ulid::generate().to_string(), job })
    }
}

impl NewJob {
    /// A job with a fresh ID that wakes a worker for the deliveries of this webhook.
    pub fn deliver(id: WebhookId) -> Result<Self, StoreError> {
        let job = serde_json::to_string(&DeliverJob::new(id)).map_err(|error| StoreError::Internal(error.to_string()))?;
        Ok(Self { id: Ulid::generate().to_string(), job })
    }

    /// A job with a fresh ID that wakes a worker for this plan.
    pub fn incident(id: IncidentId) -> Result<Self, StoreError> {
        let job = serde_json::to_string(&IncidentJob::new(id)).map_err(|error| StoreError::Internal(error.to_string()))?;
        Ok(Self { id: Ulid::generate().to_string(), job })
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Enqueues jobs that are due after this time, or at once if it is zero.
    pub(super) async fn push(&self, tx: &mut Lent<DB>, jobs: &[NewJob], delay: Duration) -> Result<(), StoreError> {
        let delay = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        self.execute(tx, PUSH_JOBS, values![given_rows(jobs)?, GENERATE_CSR_QUEUE, delay]).await.map(drop)
    }

    /// Gives pending rows new jobs, unless someone else just did; how many got one. A row has its ID and that of its job.
    pub(super) async fn requeue(&self, tx: &mut Lent<DB>, rows: &[DB::Row]) -> Result<u64, StoreError> {
        let mut jobs = Vec::new();
        for row in rows {
            let row = Reader::<DB>(row);
            let id = row.parsed("id", CustomCsrId::parse)?;
            let job = NewJob::new(id)?;
            if self.execute(tx, REPLACE_JOB, values![id.to_string(), job.id.clone(), row.text("job_id")?]).await? > 0 {
                jobs.push(job);
            }
        }
        if !jobs.is_empty() {
            self.push(tx, &jobs, Duration::ZERO).await?;
        }
        Ok(jobs.len() as u64)
    }

    /// Takes a job back that no worker has yet.
    pub(super) async fn cancel_job(&self, tx: &mut Lent<DB>, id: String) -> Result<(), StoreError> {
        self.execute(tx, CANCEL_JOB, values![id]).await.map(drop)
    }
}
