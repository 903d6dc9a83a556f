//! Renewals: the policies of zones, and each step of a renewal. The row of the certificate says which step comes next: whoever is killed
//! between two of them loses nothing, and of two who do the same one only the first does anything.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Acceptance, Dialect, MAX_PENDING, NewCustomCsr, Signal, SqlStore, StoreError,
    certificates::sql::listed_columns,
    custom_csrs::{AcceptRequest, columns_with_certificates},
    engine::{Lent, Reader, Sql, Value, statements, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    custom_certificate::CustomCertificate,
    custom_csr::{CustomCsr, Status},
    events,
    handover::NewHandover,
    ids::{CustomCsrId, Scope},
    metrics,
    renewal::{Fraction, RenewalKey, RenewalPolicy, RenewalStatus},
};

/// A custom CSR that failed is followed by another one after this time.
const RETRY_AFTER: Duration = Duration::from_hours(1);

/// A renewal whose next step can be done.
#[derive(Debug, Clone)]
pub struct DueRenewal {
    /// The certificate, without its PEM.
    pub certificate: CustomCertificate,
    /// With which key.
    pub key: RenewalKey,
    /// What comes next.
    pub step: RenewalStep,
    /// Why there was no custom CSR the last time, if there was none: its tenant was told so.
    pub refused: Option<String>,
    /// The row as it was read: of a row that is another by now nothing is done.
    read: RowRead,
}

/// What comes next in a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalStep {
    /// It begins: with a new key, there is a custom CSR to make.
    Begin,
    /// Its custom CSR is active: the tenant is told.
    Announce(CustomCsrId),
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// It is done.
    Done,
    /// There may be no further custom CSR, which the tenant is told once.
    Refused,
    /// It is to be tried again.
    NotYet,
    /// The row or the policy is another by now, or is gone.
    Overtaken,
}

#[derive(Debug, Clone)]
struct RowRead {
    modified_at: i64,
    state: String,
    leaf: String,
    csr_id: String,
}

/// The part of the storage that is renewals. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait Renewals: Send + Sync {
    /// Sets a zone's policy, in place of the one that it has.
    async fn put_renewal_policy(
        &self,
        zone: &Scope,
        key: RenewalKey,
        at: Fraction,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RenewalPolicy, StoreError>;

    /// A zone's policy, if it has one.
    async fn find_renewal_policy(&self, zone: &Scope) -> Result<Option<RenewalPolicy>, StoreError>;

    /// Deletes a zone's policy; false if it has none. Renewals that wait for a custom CSR end with it; those that have one can still be done.
    async fn delete_renewal_policy(&self, zone: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// Renewals of granted zones with a step to do at `now`, of up to `limit` certificates with IDs after this one; and the ID to go on
    /// after, if there may be more.
    async fn list_due_renewals(&self, after: &str, limit: u32, now: Timestamp) -> Result<(Vec<DueRenewal>, Option<String>), StoreError>;

    /// Does the next step. A custom CSR is made as a rekey makes it, and counts against the quota of the old one's scope. `link` is the
    /// hand-over link of [`RenewalStep::Announce`].
    async fn renew(
        &self,
        due: &DueRenewal,
        link: Option<&NewHandover>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RenewalOutcome, StoreError>;
}

macro_rules! policy_columns {
    () => {
        "scope, renewal_key, fraction, created_at, updated_at"
    };
}

/// That certificate `$1` of zone `$2` is as it was read: last changed at `$3`, with the renewal `$4` of the leaf `$5` by the custom CSR `$6`.
macro_rules! as_read {
    () => {
        "id = $1 AND scope = $2 AND modified_at = $3 AND COALESCE(renewal_state, '') = $4 AND COALESCE(renewal_leaf, '') = $5 \
         AND COALESCE(renewal_csr_id, '') = $6"
    };
}

statements! {
    PUT_POLICY = concat!(
        "INSERT INTO renewal_policies (", policy_columns!(), ") VALUES ($1, $2, $3, $4, $4) ON CONFLICT (scope) DO UPDATE SET \
        renewal_key = excluded.renewal_key, fraction = excluded.fraction, updated_at = excluded.updated_at RETURNING ", policy_columns!()
    );
    FIND_POLICY = concat!("SELECT ", policy_columns!(), " FROM renewal_policies WHERE scope = $1");
    DELETE_POLICY = "DELETE FROM renewal_policies WHERE scope = $1";
    FORGET_DUE = "UPDATE custom_certificates SET renewal_state = NULL, renewal_leaf = NULL, renewal_csr_id = NULL, renewal_error = NULL \
        WHERE scope = $1 AND renewal_state = 'due'";
    /// Keeps the policy of a zone, which wants this key, until the transaction ends.
    LOCK_POLICY = "UPDATE renewal_policies SET updated_at = updated_at WHERE scope = $1 AND renewal_key = $2";
    /// The next `$3` certificates with IDs after `$1` that may have a step to do at `$2`: the caller looks closer. Those that had expired
    /// when the policy was set are not in use.
    MAY_BE_DUE = concat!(
        "SELECT ", listed_columns!(), ", renewal_csr_id, renewal_error, renewal_key, fraction, csr_status, csr_updated_at, ari_window_start \
        FROM custom_certificates \
        JOIN (SELECT scope AS policy_scope, renewal_key, fraction, created_at AS policy_made_at FROM renewal_policies) AS policies \
        ON policy_scope = scope \
        LEFT JOIN (SELECT id AS csr_id, status AS csr_status, updated_at AS csr_updated_at FROM custom_csrs) AS renewing \
        ON csr_id = renewal_csr_id \
        WHERE id > $1 AND EXISTS (SELECT 1 FROM scopes WHERE scopes.scope = policy_scope AND scopes.granted = 1) \
        AND COALESCE(csr_status, '') <> 'pending' AND not_after >= policy_made_at \
        AND (renewal_state = 'due' OR not_before IS NULL OR described_at IS NULL OR described_at <> modified_at \
        OR (COALESCE(renewal_leaf, '') <> fingerprint_sha256 AND (ari_window_start <= CAST($2 AS BIGINT) \
        OR not_after - CAST(fraction AS DOUBLE PRECISION) * (not_after - not_before) <= CAST($2 AS BIGINT) + 1000000))) \
        ORDER BY id LIMIT $3"
    );
    FIND_ANY_CSR = concat!("SELECT ", columns_with_certificates!(), " FROM custom_csrs WHERE id = $1");
    BEGIN_RENEWAL = concat!(
        "UPDATE custom_certificates SET renewal_state = 'due', renewal_leaf = $7, renewal_csr_id = $8, renewal_error = NULL WHERE ", as_read!()
    );
    /// A trigger tells of it.
    REFUSE_RENEWAL = concat!(
        "UPDATE custom_certificates SET renewal_state = 'due', renewal_leaf = $7, renewal_csr_id = NULL, renewal_error = $8, renewal_told = $9, \
        renewal_handover_id = NULL, renewal_told_at = $10 WHERE ", as_read!()
    );
    /// Keeps an active custom CSR until the transaction ends.
    LOCK_ACTIVE_CSR = "UPDATE custom_csrs SET updated_at = updated_at WHERE id = $1 AND status = 'active'";
    /// A trigger tells of it.
    ANNOUNCE_RENEWAL = concat!(
        "UPDATE custom_certificates SET renewal_state = 'csr_ready', renewal_told = $7, renewal_handover_id = $8, renewal_told_at = $9 WHERE ",
        as_read!()
    );
}

impl<DB: Dialect> Reader<'_, DB> {
    fn policy(&self) -> Result<RenewalPolicy, StoreError> {
        Ok(RenewalPolicy {
            zone: self.scope()?,
            key: self.parsed("renewal_key", RenewalKey::parse)?,
            at: self.parsed("fraction", Fraction::parse)?,
            created_at: Timestamp::from_micros(self.int("created_at")?),
            updated_at: Timestamp::from_micros(self.int("updated_at")?),
        })
    }

    /// The renewal of a certificate, if it has a step to do.
    fn due_renewal(&self, now: Timestamp) -> Result<Option<DueRenewal>, StoreError> {
        let certificate = self.certificate()?;
        let read = RowRead {
            modified_at: certificate.modified_at.micros(),
            state: self.optional_text("renewal_state")?.unwrap_or_default(),
            leaf: self.optional_text("renewal_leaf")?.unwrap_or_default(),
            csr_id: self.optional_text("renewal_csr_id")?.unwrap_or_default(),
        };
        let is_begun = certificate.renewal.status == RenewalStatus::Due;
        let step = match certificate.renewal.status {
            RenewalStatus::CsrReady => None,
            RenewalStatus::Due => self.step_of_begun(now)?,
            RenewalStatus::None | RenewalStatus::Done => {
                let point = self.parsed("fraction", Fraction::parse)?.point(certificate.chain.leaf.not_before, certificate.chain.not_after);
                let has_window = self.optional_text("ari_leaf")?.as_deref() == Some(&certificate.chain.leaf.fingerprint_sha256);
                let window = self.optional_int("ari_window_start")?.filter(|_| has_window);
                (point <= now || window.is_some_and(|start| start <= now.micros())).then_some(RenewalStep::Begin)
            }
        };
        let Some(step) = step else { return Ok(None) };
        let refused = if is_begun { self.optional_text("renewal_error")? } else { None };
        Ok(Some(DueRenewal { key: self.parsed("renewal_key", RenewalKey::parse)?, certificate, step, refused, read }))
    }

    /// What comes after the begin. A custom CSR that is gone or failed has another one made.
    fn step_of_begun(&self, now: Timestamp) -> Result<Option<RenewalStep>, StoreError> {
        Ok(match self.optional("csr_status", Status::parse)? {
            Some(Status::Active) => Some(RenewalStep::Announce(self.parsed("renewal_csr_id", CustomCsrId::parse)?)),
            Some(Status::Pending) => None,
            Some(Status::Failed) => {
                let failed_at = Timestamp::from_micros(self.int("csr_updated_at")?);
                (failed_at.plus(RETRY_AFTER) <= now).then_some(RenewalStep::Begin)
            }
            None => Some(RenewalStep::Begin),
        })
    }
}

impl DueRenewal {
    fn as_read(&self) -> Vec<Value> {
        let RowRead { modified_at, state, leaf, csr_id } = self.read.clone();
        values![self.certificate.id.to_string(), self.certificate.zone.to_string(), modified_at, state, leaf, csr_id]
    }

    fn leaf(&self) -> String {
        self.certificate.chain.leaf.fingerprint_sha256.clone()
    }
}

fn told(csr: Option<&CustomCsr>, error: Option<&str>) -> Result<String, StoreError> {
    events::renewal_told(csr, error).map_err(|error| StoreError::Internal(error.to_string()))
}

impl<DB: Dialect> Sql<DB> {
    async fn find_any_csr(&self, tx: &mut Lent<DB>, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError> {
        let rows = self.fetch(tx, FIND_ANY_CSR, values![id.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()
    }

    /// Begins a renewal: whoever locks the row first.
    async fn mark_begun(&self, tx: &mut Lent<DB>, due: &DueRenewal, csr: CustomCsrId) -> Result<bool, StoreError> {
        if self.execute(tx, LOCK_POLICY, values![due.certificate.zone.to_string(), due.key.as_str()]).await? == 0 {
            return Ok(false);
        }
        let mut values = due.as_read();
        values.extend(values![due.leaf(), csr.to_string()]);
        Ok(self.execute(tx, BEGIN_RENEWAL, values).await? > 0)
    }
}

impl<DB: Dialect> SqlStore<DB> {
    async fn begin_renewal(&self, due: &DueRenewal, actor: &Actor, now: Timestamp) -> Result<RenewalOutcome, StoreError> {
        let present = due.certificate.custom_csr_id;
        let mut tx = self.sql.begin_write().await?;
        if due.key == RenewalKey::Reuse {
            if !self.sql.mark_begun(&mut tx, due, present).await? {
                return Ok(RenewalOutcome::Overtaken);
            }
            self.sql.commit(tx).await?;
            return Ok(RenewalOutcome::Done);
        }
        let id = CustomCsrId::new(now);
        if !self.sql.mark_begun(&mut tx, due, id).await? {
            return Ok(RenewalOutcome::Overtaken);
        }
        let Some(old) = self.sql.find_any_csr(&mut tx, present).await? else { return Ok(RenewalOutcome::Overtaken) };
        let new = NewCustomCsr {
            id,
            scope: old.scope.clone(),
            request: old.request,
            idempotency_key: None,
            replaces: Some(old.id),
            max_pending: MAX_PENDING,
        };
        let request = AcceptRequest { new, actor: actor.clone(), now, traceparent: None };
        let decision = self.sql.accept(&mut tx, &[&request], true).await?.pop().flatten();
        let (kind, scope) = (old.scope.kind(), old.scope.id());
        let reason = match decision {
            Some(Acceptance::Accepted(csr)) => {
                self.sql.commit(tx).await?;
                metrics::custom_csr_accepted(csr.request.key_type);
                self.signals.send(Signal::Enqueued);
                return Ok(RenewalOutcome::Done);
            }
            Some(Acceptance::QuotaUsedUp(quota)) => {
                format!("The quota is used up: the {kind} {scope} has all {quota} custom CSRs that it may have.")
            }
            Some(Acceptance::NoQuota) => format!("The {kind} {scope} has no quota of custom CSRs."),
            Some(Acceptance::NotGranted) => format!("The {kind} {scope} is not granted custom CSRs."),
            Some(Acceptance::TooManyPending | Acceptance::TooManyKeys | Acceptance::Replayed(_) | Acceptance::KeyReused) | None => {
                return Ok(RenewalOutcome::NotYet);
            }
        };
        // Nothing of this was done.
        drop(tx);
        self.refuse_renewal(due, &reason, now).await
    }

    /// Leaves a renewal without a custom CSR for this reason, which the tenant is told once.
    async fn refuse_renewal(&self, due: &DueRenewal, reason: &str, now: Timestamp) -> Result<RenewalOutcome, StoreError> {
        if due.refused.is_some() {
            return Ok(RenewalOutcome::Refused);
        }
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, LOCK_POLICY, values![due.certificate.zone.to_string(), due.key.as_str()]).await? == 0 {
            return Ok(RenewalOutcome::Overtaken);
        }
        let mut values = due.as_read();
        values.extend(values![due.leaf(), reason, told(None, Some(reason))?, now.micros()]);
        if self.sql.execute(&mut tx, REFUSE_RENEWAL, values).await? == 0 {
            return Ok(RenewalOutcome::Overtaken);
        }
        self.sql.commit(tx).await?;
        Ok(RenewalOutcome::Refused)
    }

    async fn announce_renewal(
        &self,
        due: &DueRenewal,
        csr: CustomCsrId,
        link: Option<&NewHandover>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RenewalOutcome, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, LOCK_ACTIVE_CSR, values![csr.to_string()]).await? == 0 {
            return Ok(RenewalOutcome::Overtaken);
        }
        let Some(csr) = self.sql.find_any_csr(&mut tx, csr).await? else { return Ok(RenewalOutcome::Overtaken) };
        let mut values = due.as_read();
        values.extend(values![told(Some(&csr), None)?, link.map(|link| link.id.to_string()), now.micros()]);
        if self.sql.execute(&mut tx, ANNOUNCE_RENEWAL, values).await? == 0 {
            return Ok(RenewalOutcome::Overtaken);
        }
        if let Some(link) = link {
            self.sql.insert_handover(&mut tx, &csr.scope, link, actor, now).await?;
        }
        self.sql.commit(tx).await?;
        Ok(RenewalOutcome::Done)
    }
}

#[async_trait]
impl<DB: Dialect> Renewals for SqlStore<DB> {
    async fn put_renewal_policy(
        &self,
        zone: &Scope,
        key: RenewalKey,
        at: Fraction,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RenewalPolicy, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        let rows = self.sql.fetch(&mut tx, PUT_POLICY, values![zone.to_string(), key.as_str(), at.to_text(), now.micros()]).await?;
        let policy = rows.first().map(|row| Reader::<DB>(row).policy()).transpose()?;
        let policy = policy.ok_or_else(|| StoreError::Internal("a row was expected".to_owned()))?;
        self.sql.record(&mut tx, &NewEntry::renewal_policy(Action::Edit, zone), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(policy)
    }

    async fn find_renewal_policy(&self, zone: &Scope) -> Result<Option<RenewalPolicy>, StoreError> {
        self.sql.rows(FIND_POLICY, values![zone.to_string()]).await?.first().map(|row| Reader::<DB>(row).policy()).transpose()
    }

    async fn delete_renewal_policy(&self, zone: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, DELETE_POLICY, values![zone.to_string()]).await? == 0 {
            return Ok(false);
        }
        self.sql.execute(&mut tx, FORGET_DUE, values![zone.to_string()]).await?;
        self.sql.record(&mut tx, &NewEntry::renewal_policy(Action::Delete, zone), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(true)
    }

    async fn list_due_renewals(&self, after: &str, limit: u32, now: Timestamp) -> Result<(Vec<DueRenewal>, Option<String>), StoreError> {
        let rows = self.sql.rows(MAY_BE_DUE, values![after, now.micros(), i64::from(limit)]).await?;
        let mut due = Vec::new();
        for row in &rows {
            // One that cannot be read holds up no other.
            match Reader::<DB>(row).due_renewal(now) {
                Ok(renewal) => due.extend(renewal),
                Err(error) => tracing::error!(%error, "the renewal of a certificate cannot be read"),
            }
        }
        let is_full = u32::try_from(rows.len()).is_ok_and(|count| count >= limit);
        let last = rows.last().filter(|_| is_full).map(|row| Reader::<DB>(row).text("id")).transpose()?;
        Ok((due, last))
    }

    async fn renew(
        &self,
        due: &DueRenewal,
        link: Option<&NewHandover>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RenewalOutcome, StoreError> {
        match due.step {
            RenewalStep::Begin => self.begin_renewal(due, actor, now).await,
            RenewalStep::Announce(csr) => self.announce_renewal(due, csr, link, actor, now).await,
        }
    }
}
