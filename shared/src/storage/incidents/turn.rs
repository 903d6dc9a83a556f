//! Turns: in each turn, the runner of a plan rekeys a batch of its custom CSRs in one transaction, as many as the schedule allows.

use std::time::Duration;

use super::{rekey::Successor, schedule::SCHEDULE};
use crate::{
    audit::{Actor, Via},
    clock::Timestamp,
    custom_csr::KeyType,
    ids::IncidentId,
    incident::IncidentStatus,
    storage::{
        Dialect, StoreError,
        engine::{Lent, Reader, Sql, statements, values},
    },
};

/// The most custom CSRs that one turn rekeys. It locks their scopes.
pub const TURN_MAX: usize = 32;
/// The most pending custom CSRs of a plan: those of tenants wait behind them.
const PENDING_MAX: i64 = 500;
/// The pause before the next look whether there are fewer.
const PENDING_WAIT: Duration = Duration::from_millis(200);

/// A turn of a plan.
#[derive(Clone)]
pub struct Turn {
    /// The plan.
    pub incident_id: IncidentId,
    /// Who takes it: each job has a name of its own.
    pub runner: String,
    /// For the new custom CSRs, at most [`TURN_MAX`]; those that are not needed are dropped.
    pub successors: Vec<Successor>,
}

/// The result of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turned {
    /// The plan is not running: it is done, stopped or gone.
    NotRunning,
    /// Another runner has it.
    Held,
    /// These were rekeyed, if any were due.
    Went {
        /// The types of the keys to make.
        rekeyed: Vec<KeyType>,
        /// When the next turn is due.
        wait: Duration,
    },
}

statements! {
    INCIDENT_STATUS = "SELECT status FROM incidents WHERE id = $1";
    /// The pending custom CSRs that plan `$1` made, counted up to `$2`.
    COUNT_MADE_PENDING = "SELECT COUNT(*) AS total FROM (SELECT id FROM custom_csrs WHERE status = 'pending' AND incident_id = $1 LIMIT $2) AS made";
    NEXT_PLANNED = "SELECT custom_csr_id AS id, earlier FROM incident_rekeys WHERE incident_id = $1 AND state = 'planned' \
        ORDER BY custom_csr_id LIMIT $2";
    END_INCIDENT = "UPDATE incidents SET status = 'done', ended_at = $2 WHERE id = $1";
}

impl<DB: Dialect> Sql<DB> {
    /// See [`super::Incidents::take_turn`].
    pub(super) async fn take_turn(&self, turn: &Turn, now: Timestamp) -> Result<Turned, StoreError> {
        let id = turn.incident_id.to_string();
        let mut tx = self.begin_write().await?;
        let Some(hold) = self.hold_incident(&mut tx, turn.incident_id, &turn.runner).await? else {
            let rows = self.fetch(&mut tx, INCIDENT_STATUS, values![id]).await?;
            let status = rows.first().map(|row| Reader::<DB>(row).parsed("status", IncidentStatus::parse)).transpose()?;
            return Ok(if status == Some(IncidentStatus::Running) { Turned::Held } else { Turned::NotRunning });
        };
        let due = match hold.due() {
            Ok(due) => due.min(i64::try_from(turn.successors.len()).unwrap_or(i64::MAX)).max(1),
            Err(wait) => return self.pass(tx, wait).await,
        };
        if self.total(&mut tx, COUNT_MADE_PENDING, values![id.clone(), PENDING_MAX]).await? >= PENDING_MAX {
            return self.pass(tx, PENDING_WAIT).await;
        }
        let planned = self.fetch(&mut tx, NEXT_PLANNED, values![id.clone(), due]).await?;
        if planned.is_empty() {
            self.execute(&mut tx, END_INCIDENT, values![id, now.micros()]).await?;
            self.commit(tx).await?;
            return Ok(Turned::NotRunning);
        }
        let actor = Actor { who: hold.started_by.clone(), via: Via::Cli, from: "local".to_owned(), request_id: Some(id.clone()) };
        let rekeyed = self.rekey_planned(&mut tx, turn.incident_id, &planned, &turn.successors, &actor, now).await?;
        let next_at = hold.next_after(rekeyed.len());
        if let Some(next_at) = next_at {
            self.execute(&mut tx, SCHEDULE, values![id, next_at]).await?;
        }
        self.commit(tx).await?;
        let wait = next_at.map_or(0, |next_at| next_at.saturating_sub(hold.now).max(0));
        Ok(Turned::Went { rekeyed, wait: Duration::from_micros(wait.unsigned_abs()) })
    }

    /// Ends a turn that only holds the plan.
    async fn pass(&self, tx: Lent<DB>, wait: Duration) -> Result<Turned, StoreError> {
        self.commit(tx).await?;
        Ok(Turned::Went { rekeyed: Vec::new(), wait })
    }
}
