//! Incidents: makes, starts, stops and forgets plans of rekeys. `turn` is what workers do for a running plan.

mod read;
mod rekey;
mod schedule;
mod turn;

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use serde_json::Value;

#[cfg(test)]
pub(super) use self::{
    read::STATEMENTS as READ_STATEMENTS, rekey::STATEMENTS as REKEY_STATEMENTS, schedule::STATEMENTS as SCHEDULE_STATEMENTS,
    turn::STATEMENTS as TURN_STATEMENTS,
};
pub use self::{
    rekey::Successor,
    schedule::Woken,
    turn::{TURN_MAX, Turn, Turned},
};
use super::{
    Dialect, SqlStore, StoreError,
    engine::{Lent, Reader, Sql, given_rows, statements, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, IncidentId, Scope},
    incident::{Candidate, Incident, IncidentStatus, Rekey},
};

/// A plan about to be stored.
#[derive(Debug, Clone)]
pub struct NewIncident {
    /// Its ID, chosen by the caller.
    pub id: IncidentId,
    /// Its filters: [`Filters::json`](crate::incident::Filters::json).
    pub filters: Value,
    /// Its certificates.
    pub certificates: Vec<PlannedCertificate>,
}

/// A certificate of a plan.
#[derive(Debug, Clone)]
pub struct PlannedCertificate {
    /// Its ID.
    pub id: CustomCertificateId,
    /// Its zone.
    pub zone: Scope,
    /// The custom CSR that it uses.
    pub custom_csr_id: CustomCsrId,
    /// The zone or account of the custom CSR.
    pub scope: Scope,
}

/// The part of the storage for incidents. Each method is one transaction, as in [`super::Store`], but for the batches of a purge.
///
/// A plan rekeys each of its custom CSRs at most once: its row says so, and is written together with the new custom CSR. A custom CSR that
/// another plan has rekeyed since this one was made is skipped. The new custom CSR shares the place of the old one in the quota, and keeps
/// it when the old one is deleted.
#[async_trait]
pub trait Incidents: Send + Sync {
    /// The next `limit` unexpired certificates of all zones whose custom CSR is active, by ID, after this one.
    async fn list_candidates(&self, after: Option<CustomCertificateId>, limit: u32, now: Timestamp) -> Result<Vec<Candidate>, StoreError>;

    /// Stores a plan, which changes nothing else yet.
    async fn create_incident(&self, new: &NewIncident, actor: &Actor, now: Timestamp) -> Result<(), StoreError>;

    /// The plan with this ID.
    async fn find_incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError>;

    /// All plans, the newest first.
    async fn list_incidents(&self) -> Result<Vec<Incident>, StoreError>;

    /// The next `limit` custom CSRs of a plan, by ID, after this one, with what became of them.
    async fn list_rekeys(&self, id: IncidentId, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<Rekey>, StoreError>;

    /// Has the workers rekey what is left of a plan, with this pause between two rekeys of all workers together. Zero means no pause, `None` keeps
    /// the present one. Returns the former status, or `None` if there is no such plan. A plan that is done stays so.
    async fn start_incident(
        &self,
        id: IncidentId,
        pause: Option<Duration>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<IncidentStatus>, StoreError>;

    /// Stops a running plan. Returns the former status, or `None` if there is no such plan.
    async fn stop_incident(&self, id: IncidentId, actor: &Actor, now: Timestamp) -> Result<Option<IncidentStatus>, StoreError>;

    /// Deletes a zone or an account from all plans.
    async fn forget_in_incidents(&self, scope: &Scope) -> Result<(), StoreError>;

    /// Deletes plans that ended before this time, or were made before it and never started. Returns how many.
    async fn purge_incidents(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Gives a job to every running plan that no worker runs.
    async fn wake_incidents(&self) -> Result<Woken, StoreError>;

    /// Rekeys the next custom CSRs of a running plan, as many as are due, unless another runner has the plan.
    async fn take_turn(&self, turn: &Turn, now: Timestamp) -> Result<Turned, StoreError>;

    /// Releases a plan, so that other runners can take it at once.
    async fn end_turns(&self, id: IncidentId, runner: &str) -> Result<(), StoreError>;
}

/// The most rows of a plan that one statement writes.
const CHUNK: usize = 1_000;

/// Which plans are so old that they are deleted: those that ended before `$1`, or were made before it and never started.
macro_rules! old_incidents {
    () => {
        "SELECT id FROM incidents WHERE status <> 'running' AND COALESCE(ended_at, created_at) < $1"
    };
}

statements! {
    INSERT_INCIDENT = "INSERT INTO incidents (id, filters, created_at) VALUES ($1, $2, $3)";
    INSERT_CERTIFICATES(id TEXT, zone TEXT, custom_csr_id TEXT) =
        "INSERT INTO incident_certificates (incident_id, certificate_id, scope, custom_csr_id) \
        SELECT CAST($2 AS TEXT), given.id, given.zone, given.custom_csr_id FROM ", "";
    INSERT_REKEYS(custom_csr_id TEXT, scope TEXT) = "INSERT INTO incident_rekeys (incident_id, custom_csr_id, scope, earlier) \
        SELECT CAST($2 AS TEXT), given.custom_csr_id, given.scope, (SELECT COUNT(*) FROM incident_rekeys AS made \
        WHERE made.custom_csr_id = given.custom_csr_id AND made.new_custom_csr_id IS NOT NULL) FROM ", "";
    /// Locks a plan: only one caller at a time starts it, stops it or takes a turn.
    LOCK_INCIDENT = "UPDATE incidents SET status = status WHERE id = $1 RETURNING status";
    START_INCIDENT = "UPDATE incidents SET status = 'running', pause = NULLIF(COALESCE(CAST($2 AS BIGINT), pause), 0), \
        next_at = CASE WHEN status = 'running' THEN next_at END, \
        runner_until = CASE WHEN status = 'running' THEN runner_until ELSE 0 END, started_at = COALESCE(started_at, $3), started_by = $4, ended_at = NULL \
        WHERE id = $1";
    STOP_INCIDENT = "UPDATE incidents SET status = 'stopped', ended_at = $2 WHERE id = $1";
    FORGET_CERTIFICATES = "DELETE FROM incident_certificates WHERE scope = $1 \
        OR custom_csr_id IN (SELECT custom_csr_id FROM incident_rekeys WHERE scope = $1)";
    FORGET_REKEYS = "DELETE FROM incident_rekeys WHERE scope = $1";
    OLD_INCIDENTS = old_incidents!();
    PURGE_CERTIFICATES = concat!(
        "DELETE FROM incident_certificates WHERE (incident_id, certificate_id) IN (SELECT incident_id, certificate_id \
         FROM incident_certificates WHERE incident_id IN (", old_incidents!(), ") LIMIT $2)"
    );
    PURGE_REKEYS = concat!(
        "DELETE FROM incident_rekeys WHERE (incident_id, custom_csr_id) IN (SELECT incident_id, custom_csr_id \
         FROM incident_rekeys WHERE incident_id IN (", old_incidents!(), ") LIMIT $2)"
    );
    PURGE_INCIDENTS = concat!(
        "DELETE FROM incidents WHERE id IN (", old_incidents!(),
        " AND NOT EXISTS (SELECT 1 FROM incident_certificates WHERE incident_id = incidents.id) \
         AND NOT EXISTS (SELECT 1 FROM incident_rekeys WHERE incident_id = incidents.id) LIMIT $2)"
    );
}

#[derive(serde::Serialize)]
struct CertificateRow {
    id: String,
    zone: String,
    custom_csr_id: String,
}

#[derive(serde::Serialize)]
struct RekeyRow {
    custom_csr_id: String,
    scope: String,
}

impl<DB: Dialect> Sql<DB> {
    async fn lock_incident(&self, tx: &mut Lent<DB>, id: IncidentId) -> Result<Option<IncidentStatus>, StoreError> {
        let rows = self.fetch(tx, LOCK_INCIDENT, values![id.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).parsed("status", IncidentStatus::parse)).transpose()
    }
}

#[async_trait]
impl<DB: Dialect> Incidents for SqlStore<DB> {
    async fn list_candidates(&self, after: Option<CustomCertificateId>, limit: u32, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
        self.sql.list_candidates(after, limit, now).await
    }

    async fn create_incident(&self, new: &NewIncident, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let id = new.id.to_string();
        let mut tx = self.sql.begin_write().await?;
        self.sql.execute(&mut tx, INSERT_INCIDENT, values![id.clone(), new.filters.to_string(), now.micros()]).await?;
        let mut planned = BTreeSet::new();
        for certificates in new.certificates.chunks(CHUNK) {
            let (mut rows, mut rekeys) = (Vec::new(), Vec::new());
            for PlannedCertificate { id, zone, custom_csr_id, scope } in certificates {
                rows.push(CertificateRow { id: id.to_string(), zone: zone.to_string(), custom_csr_id: custom_csr_id.to_string() });
                if planned.insert(*custom_csr_id) {
                    rekeys.push(RekeyRow { custom_csr_id: custom_csr_id.to_string(), scope: scope.to_string() });
                }
            }
            self.sql.execute(&mut tx, INSERT_CERTIFICATES, values![given_rows(&rows)?, id.clone()]).await?;
            self.sql.execute(&mut tx, INSERT_REKEYS, values![given_rows(&rekeys)?, id.clone()]).await?;
        }
        self.sql.record(&mut tx, &NewEntry::incident(Action::IncidentPlan, new.id), actor, now).await?;
        self.sql.commit(tx).await
    }

    async fn find_incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        self.sql.find_incident(id).await
    }

    async fn list_incidents(&self) -> Result<Vec<Incident>, StoreError> {
        self.sql.list_incidents().await
    }

    async fn list_rekeys(&self, id: IncidentId, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<Rekey>, StoreError> {
        self.sql.list_rekeys(id, after, limit).await
    }

    async fn start_incident(
        &self,
        id: IncidentId,
        pause: Option<Duration>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<IncidentStatus>, StoreError> {
        let pause = pause.map(|pause| i64::try_from(pause.as_micros()).unwrap_or(i64::MAX));
        let mut tx = self.sql.begin_write().await?;
        let Some(before) = self.sql.lock_incident(&mut tx, id).await? else { return Ok(None) };
        if before != IncidentStatus::Done {
            let values = values![id.to_string(), pause, now.micros(), actor.who.clone()];
            self.sql.execute(&mut tx, START_INCIDENT, values).await?;
            self.sql.record(&mut tx, &NewEntry::incident(Action::IncidentStart, id), actor, now).await?;
            self.sql.commit(tx).await?;
        }
        Ok(Some(before))
    }

    async fn stop_incident(&self, id: IncidentId, actor: &Actor, now: Timestamp) -> Result<Option<IncidentStatus>, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        let Some(before) = self.sql.lock_incident(&mut tx, id).await? else { return Ok(None) };
        if before == IncidentStatus::Running {
            self.sql.execute(&mut tx, STOP_INCIDENT, values![id.to_string(), now.micros()]).await?;
            self.sql.record(&mut tx, &NewEntry::incident(Action::IncidentStop, id), actor, now).await?;
            self.sql.commit(tx).await?;
        }
        Ok(Some(before))
    }

    async fn forget_in_incidents(&self, scope: &Scope) -> Result<(), StoreError> {
        let mut tx = self.sql.begin_write().await?;
        self.sql.execute(&mut tx, FORGET_CERTIFICATES, values![scope.to_string()]).await?;
        self.sql.execute(&mut tx, FORGET_REKEYS, values![scope.to_string()]).await?;
        self.sql.commit(tx).await
    }

    async fn purge_incidents(&self, before: Timestamp) -> Result<u64, StoreError> {
        if self.sql.rows(OLD_INCIDENTS, values![before.micros()]).await?.is_empty() {
            return Ok(0);
        }
        self.sql.purge_batches(PURGE_CERTIFICATES, before.micros()).await?;
        self.sql.purge_batches(PURGE_REKEYS, before.micros()).await?;
        self.sql.purge_batches(PURGE_INCIDENTS, before.micros()).await
    }

    async fn wake_incidents(&self) -> Result<Woken, StoreError> {
        self.sql.wake_incidents().await
    }

    async fn take_turn(&self, turn: &Turn, now: Timestamp) -> Result<Turned, StoreError> {
        let turned = self.sql.take_turn(turn, now).await?;
        if let Turned::Went { rekeyed, .. } = &turned
            && !rekeyed.is_empty()
        {
            self.signals.send(super::Signal::Enqueued);
        }
        Ok(turned)
    }

    async fn end_turns(&self, id: IncidentId, runner: &str) -> Result<(), StoreError> {
        self.sql.end_turns(id, runner).await
    }
}
