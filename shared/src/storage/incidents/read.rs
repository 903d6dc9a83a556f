//! Reads plans: the certificates they can be made of, their progress, and what became of each custom CSR.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    custom_certificate::LAST_SECOND,
    ids::{CustomCertificateId, CustomCsrId, IncidentId, Scope},
    incident::{Candidate, Incident, IncidentStatus, Progress, Rekey},
    storage::{
        Dialect, StoreError,
        engine::{Lent, Reader, Sql, statements, values},
    },
};

statements! {
    /// `$2` is the first notAfter that has not expired.
    LIST_CANDIDATES = "SELECT c.id, c.scope AS zone, c.hosts, c.issuer, c.not_after, c.chain_pem, c.custom_csr_id, k.scope, k.created_at \
        FROM custom_certificates AS c JOIN custom_csrs AS k ON k.id = c.custom_csr_id \
        WHERE c.id > $1 AND c.not_after >= $2 AND k.status = 'active' ORDER BY c.id LIMIT $3";
    FIND_INCIDENT = "SELECT id, status, filters, created_at, started_at, ended_at, pause FROM incidents WHERE id = $1";
    LIST_INCIDENTS = "SELECT id, status, filters, created_at, started_at, ended_at, pause FROM incidents ORDER BY created_at DESC, id DESC";
    PROGRESS = "SELECT (SELECT COUNT(*) FROM incident_certificates WHERE incident_id = $1) AS certificates, COUNT(*) AS custom_csrs, \
        COUNT(CASE WHEN r.state = 'planned' THEN 1 END) AS planned, COUNT(CASE WHEN r.state = 'rekeyed' THEN 1 END) AS rekeyed, \
        COUNT(CASE WHEN r.state = 'skipped' THEN 1 END) AS skipped, COUNT(CASE WHEN k.status = 'pending' THEN 1 END) AS pending, \
        COUNT(CASE WHEN k.status = 'active' THEN 1 END) AS active, COUNT(CASE WHEN k.status = 'failed' THEN 1 END) AS failed, \
        COUNT(CASE WHEN r.state = 'rekeyed' AND k.id IS NULL THEN 1 END) AS deleted \
        FROM incident_rekeys AS r LEFT JOIN custom_csrs AS k ON k.id = r.new_custom_csr_id WHERE r.incident_id = $1";
    LIST_REKEYS = "SELECT custom_csr_id, scope, state, reason, new_custom_csr_id FROM incident_rekeys \
        WHERE incident_id = $1 AND custom_csr_id > $2 ORDER BY custom_csr_id LIMIT $3";
}

impl<DB: Dialect> Reader<'_, DB> {
    fn candidate(&self) -> Result<Candidate, StoreError> {
        let time = |column| self.int(column).map(Timestamp::from_micros);
        Ok(Candidate {
            id: self.parsed("id", CustomCertificateId::parse)?,
            zone: self.parsed("zone", Scope::parse)?,
            hosts: self.parsed("hosts", |json| serde_json::from_str(json).ok())?,
            issuer: self.text("issuer")?,
            not_after: time("not_after")?,
            chain_pem: self.text("chain_pem")?,
            custom_csr_id: self.parsed("custom_csr_id", CustomCsrId::parse)?,
            scope: self.scope()?,
            key_asked_at: time("created_at")?,
        })
    }

    fn incident(&self, progress: Progress) -> Result<Incident, StoreError> {
        let time = |column| Ok::<_, StoreError>(self.optional_int(column)?.map(Timestamp::from_micros));
        Ok(Incident {
            id: self.parsed("id", IncidentId::parse)?,
            status: self.parsed("status", IncidentStatus::parse)?,
            filters: self.parsed("filters", |json| serde_json::from_str(json).ok())?,
            created_at: Timestamp::from_micros(self.int("created_at")?),
            started_at: time("started_at")?,
            ended_at: time("ended_at")?,
            pause: self.pause()?,
            progress,
        })
    }

    fn pause(&self) -> Result<Option<Duration>, StoreError> {
        Ok(self.optional_int("pause")?.map(|micros| Duration::from_micros(micros.unsigned_abs())))
    }

    fn progress(&self) -> Result<Progress, StoreError> {
        let count = |column| self.int(column).map(i64::unsigned_abs);
        Ok(Progress {
            certificates: count("certificates")?,
            custom_csrs: count("custom_csrs")?,
            planned: count("planned")?,
            rekeyed: count("rekeyed")?,
            skipped: count("skipped")?,
            pending: count("pending")?,
            active: count("active")?,
            failed: count("failed")?,
            deleted: count("deleted")?,
        })
    }

    fn rekey(&self) -> Result<Rekey, StoreError> {
        Ok(Rekey {
            custom_csr_id: self.parsed("custom_csr_id", CustomCsrId::parse)?,
            scope: self.scope()?,
            state: self.text("state")?,
            reason: self.optional_text("reason")?,
            new_custom_csr_id: self.optional("new_custom_csr_id", CustomCsrId::parse)?,
        })
    }
}

impl<DB: Dialect> Sql<DB> {
    /// See [`super::Incidents::list_candidates`].
    pub(super) async fn list_candidates(
        &self,
        after: Option<CustomCertificateId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Candidate>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let first_valid = now.minus(LAST_SECOND).micros().saturating_add(1);
        let rows = self.rows(LIST_CANDIDATES, values![after, first_valid, i64::from(limit)]).await?;
        rows.iter().map(|row| Reader::<DB>(row).candidate()).collect()
    }

    /// See [`super::Incidents::find_incident`].
    pub(super) async fn find_incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        let mut tx = self.begin_read().await?;
        let rows = self.fetch(&mut tx, FIND_INCIDENT, values![id.to_string()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        self.incident_of(&mut tx, row).await.map(Some)
    }

    /// See [`super::Incidents::list_incidents`].
    pub(super) async fn list_incidents(&self) -> Result<Vec<Incident>, StoreError> {
        let mut tx = self.begin_read().await?;
        let mut incidents = Vec::new();
        for row in &self.fetch(&mut tx, LIST_INCIDENTS, values![]).await? {
            incidents.push(self.incident_of(&mut tx, row).await?);
        }
        Ok(incidents)
    }

    /// See [`super::Incidents::list_rekeys`].
    pub(super) async fn list_rekeys(&self, id: IncidentId, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<Rekey>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = self.rows(LIST_REKEYS, values![id.to_string(), after, i64::from(limit)]).await?;
        rows.iter().map(|row| Reader::<DB>(row).rekey()).collect()
    }

    async fn incident_of(&self, tx: &mut Lent<DB>, row: &DB::Row) -> Result<Incident, StoreError> {
        let row = Reader::<DB>(row);
        let progress = self.fetch(tx, PROGRESS, values![row.text("id")?]).await?;
        let progress = progress.first().map(|row| Reader::<DB>(row).progress()).transpose()?.unwrap_or_default();
        row.incident(progress)
    }
}
