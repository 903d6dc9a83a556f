//! Who runs a plan, and when its next rekey is due. Both are in the plan's row: so all workers together keep to the schedule, and one of them
//! goes on if another is killed.

use std::time::Duration;

use crate::{
    ids::IncidentId,
    job::INCIDENT_QUEUE,
    storage::{
        Dialect, StoreError,
        engine::{Lent, Reader, Sql, given_rows, statements, values},
        jobs::{NewJob, PUSH_JOBS},
    },
};

/// After this time without a turn, another runner may take the plan: this one was killed, or its database is away.
const LEASE: Duration = Duration::from_secs(3);
/// How far a plan may fall behind its schedule. What it misses beyond that is done later, not faster.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// The number of running plans, and of those that got a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Woken {
    /// How many run.
    pub running: u64,
    /// How many got a job.
    pub jobs: u64,
}

/// The database's clock, in microseconds since the Unix epoch.
macro_rules! clock {
    (sqlite) => {
        "CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)"
    };
    (postgres) => {
        "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
    };
}

/// Holds plan `$1` for runner `$2`, for `$3` microseconds, if it is running and no other runner has it.
macro_rules! hold {
    ($db:ident) => {
        concat!(
            "UPDATE incidents SET runner = $2, runner_until = ",
            clock!($db),
            " + CAST($3 AS BIGINT) \
             WHERE id = $1 AND status = 'running' AND (runner = $2 OR runner_until <= ",
            clock!($db),
            ") \
             RETURNING started_by, pause, next_at, ",
            clock!($db),
            " AS now"
        )
    };
}

statements! {
    /// The running plans. One that is `asleep` has no runner, and no job waits for it.
    RUNNING {
        sqlite: concat!(
            "SELECT id, job_id, CASE WHEN runner_until <= ", clock!(sqlite), " AND NOT EXISTS (SELECT 1 FROM Jobs \
             WHERE Jobs.id = incidents.job_id AND Jobs.status = 'Pending') THEN 1 ELSE 0 END AS asleep FROM incidents WHERE status = 'running'"
        ),
        postgres: concat!(
            "SELECT id, job_id, CAST(CASE WHEN runner_until <= ", clock!(postgres), " AND NOT EXISTS (SELECT 1 FROM apalis.jobs \
             WHERE jobs.id = incidents.job_id COLLATE \"default\" AND jobs.status = 'Pending') THEN 1 ELSE 0 END AS BIGINT) AS asleep \
             FROM incidents WHERE status = 'running'"
        ),
    };
    /// Unless another process just did.
    REPLACE_INCIDENT_JOB = "UPDATE incidents SET job_id = $2 WHERE id = $1 AND job_id = $3";
    HOLD_INCIDENT { sqlite: hold!(sqlite), postgres: hold!(postgres), };
    END_TURNS = "UPDATE incidents SET runner_until = 0 WHERE id = $1 AND runner = $2";
    pub(super) SCHEDULE = "UPDATE incidents SET next_at = $2 WHERE id = $1";
}

/// A plan that a runner holds.
pub(super) struct Hold {
    pub started_by: String,
    /// By the database's clock, in microseconds, as all here.
    pub now: i64,
    pause: Option<i64>,
    next_at: i64,
}

impl Hold {
    /// How many rekeys are due, or how long until the next one is.
    pub(super) fn due(&self) -> Result<i64, Duration> {
        let Some(pause) = self.pause else { return Ok(i64::MAX) };
        match self.now.saturating_sub(self.next_at) {
            late @ 0.. => Ok(late / pause.max(1) + 1),
            early => Err(Duration::from_micros(early.unsigned_abs())),
        }
    }

    /// When the next rekey is due, after this many.
    pub(super) fn next_after(&self, rekeyed: usize) -> Option<i64> {
        let rekeyed = i64::try_from(rekeyed).unwrap_or(i64::MAX);
        self.pause.map(|pause| self.next_at.saturating_add(pause.saturating_mul(rekeyed)))
    }
}

impl<DB: Dialect> Sql<DB> {
    /// See [`super::Incidents::wake_incidents`].
    pub(super) async fn wake_incidents(&self) -> Result<Woken, StoreError> {
        // Usually there is nothing to do, so read first: writers wait for each other.
        let running = self.rows(RUNNING, values![]).await?;
        let mut woken = Woken { running: running.len() as u64, jobs: 0 };
        for row in &running {
            let row = Reader::<DB>(row);
            if row.int("asleep")? == 0 {
                continue;
            }
            let id = row.parsed("id", IncidentId::parse)?;
            let job = NewJob::incident(id)?;
            let mut tx = self.begin_write().await?;
            let values = values![id.to_string(), job.id.clone(), row.text("job_id")?];
            if self.execute(&mut tx, REPLACE_INCIDENT_JOB, values).await? > 0 {
                self.execute(&mut tx, PUSH_JOBS, values![given_rows(&[job])?, INCIDENT_QUEUE, 0_i64]).await?;
                self.commit(tx).await?;
                woken.jobs += 1;
            }
        }
        Ok(woken)
    }

    /// See [`super::Incidents::end_turns`].
    pub(super) async fn end_turns(&self, id: IncidentId, runner: &str) -> Result<(), StoreError> {
        self.write(END_TURNS, values![id.to_string(), runner]).await.map(drop)
    }

    /// Holds a running plan for this runner, unless another runner has it.
    pub(super) async fn hold_incident(&self, tx: &mut Lent<DB>, id: IncidentId, runner: &str) -> Result<Option<Hold>, StoreError> {
        let lease = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
        let rows = self.fetch(tx, HOLD_INCIDENT, values![id.to_string(), runner, lease]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let row = Reader::<DB>(row);
        let (now, behind) = (row.int("now")?, i64::try_from(BEHIND_MAX.as_micros()).unwrap_or_default());
        let next_at = row.optional_int("next_at")?.unwrap_or(now).max(now.saturating_sub(behind));
        Ok(Some(Hold { started_by: row.text("started_by")?, now, pause: row.optional_int("pause")?, next_at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(now: i64, pause: Option<i64>, next_at: i64) -> Hold {
        Hold { started_by: String::new(), now, pause, next_at }
    }

    #[test]
    fn as_many_are_due_as_moments_have_come_and_none_before() {
        assert_eq!(hold(1_000, Some(100), 1_000).due(), Ok(1));
        assert_eq!(hold(1_250, Some(100), 1_000).due(), Ok(3));
        assert_eq!(hold(900, Some(100), 1_000).due(), Err(Duration::from_micros(100)));
        assert_eq!(hold(900, None, 1_000).due(), Ok(i64::MAX));
        assert_eq!(hold(1_250, Some(100), 1_000).next_after(3), Some(1_300));
        assert_eq!(hold(1_250, None, 1_000).next_after(3), None);
    }
}
