//! Finds the renewals with a step to do.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    custom_certificate::CustomCertificate,
    custom_csr::Status,
    ids::CustomCsrId,
    renewal::{Fraction, RenewalKey, RenewalStatus},
    storage::{
        Dialect, StoreError,
        certificates::sql::listed_columns,
        engine::{Reader, Sql, Value, statements, values},
    },
};

/// The time after which another custom CSR is made for one that failed, or, counted from when the tenant was told of it, for one that was deleted.
const RETRY_AFTER: Duration = Duration::from_hours(1);

/// A renewal whose next step can be done.
#[derive(Debug, Clone)]
pub struct DueRenewal {
    /// The certificate, without its PEM.
    pub certificate: CustomCertificate,
    /// Which key the renewed certificate has.
    pub key: RenewalKey,
    /// The next step.
    pub step: RenewalStep,
    /// Why no custom CSR was made the last time, if so. The tenant got an event about it.
    pub refused: Option<String>,
    /// The row as it was read: nothing is done if it has changed since.
    read: RowRead,
}

/// The next step of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalStep {
    /// It begins: for a new key, a custom CSR is made.
    Begin,
    /// Its custom CSR is active: the tenant gets an event.
    Announce(CustomCsrId),
}

#[derive(Debug, Clone)]
struct RowRead {
    modified_at: i64,
    state: String,
    leaf: String,
    csr_id: String,
}

statements! {
    /// The next `$3` certificates with IDs after `$1` that may have a step to do at `$2`; the caller checks that. Those that had expired
    /// when the policy was set are not in use.
    MAY_BE_DUE = concat!(
        "SELECT ", listed_columns!(), ", renewal_csr_id, renewal_error, renewal_key, fraction, csr_status, csr_updated_at, ari_window_start, \
        renewal_told_at FROM custom_certificates \
        JOIN (SELECT scope AS policy_scope, renewal_key, fraction, created_at AS policy_made_at FROM renewal_policies) AS policies \
        ON policy_scope = scope \
        LEFT JOIN (SELECT id AS csr_id, status AS csr_status, updated_at AS csr_updated_at FROM custom_csrs) AS renewing \
        ON csr_id = renewal_csr_id \
        WHERE id > $1 AND EXISTS (SELECT 1 FROM scopes WHERE scopes.scope = policy_scope AND scopes.granted = 1) \
        AND COALESCE(csr_status, '') <> 'pending' AND not_after >= policy_made_at \
        AND (renewal_state = 'due' OR (renewal_state = 'csr_ready' AND csr_status IS NULL) \
        OR not_before IS NULL OR described_at IS NULL OR described_at <> modified_at \
        OR (COALESCE(renewal_leaf, '') <> fingerprint_sha256 AND (ari_window_start <= CAST($2 AS BIGINT) \
        OR not_after - CAST(fraction AS DOUBLE PRECISION) * (not_after - not_before) <= CAST($2 AS BIGINT) + 1000000))) \
        ORDER BY id LIMIT $3"
    );
}

impl<DB: Dialect> Reader<'_, DB> {
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
            RenewalStatus::CsrReady => self.step_of_told(now)?,
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

    /// The step after the tenant was told: none, unless the custom CSR was deleted. Then no certificate can come for it.
    fn step_of_told(&self, now: Timestamp) -> Result<Option<RenewalStep>, StoreError> {
        let told_at = Timestamp::from_micros(self.optional_int("renewal_told_at")?.unwrap_or_default());
        let is_gone = self.optional_text("csr_status")?.is_none();
        Ok((is_gone && told_at.plus(RETRY_AFTER) <= now).then_some(RenewalStep::Begin))
    }

    /// The step after the first. If the custom CSR is gone or failed, another one is made.
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
    pub(super) fn as_read(&self) -> Vec<Value> {
        let RowRead { modified_at, state, leaf, csr_id } = self.read.clone();
        values![self.certificate.id.to_string(), self.certificate.zone.to_string(), modified_at, state, leaf, csr_id]
    }

    pub(super) fn leaf(&self) -> String {
        self.certificate.chain.leaf.fingerprint_sha256.clone()
    }
}

impl<DB: Dialect> Sql<DB> {
    /// See [`super::Renewals::list_due_renewals`].
    pub(super) async fn list_due_renewals(
        &self,
        after: &str,
        limit: u32,
        now: Timestamp,
    ) -> Result<(Vec<DueRenewal>, Option<String>), StoreError> {
        let rows = self.rows(MAY_BE_DUE, values![after, now.micros(), i64::from(limit)]).await?;
        let mut due = Vec::new();
        for row in &rows {
            // An unreadable row must not hold up the others.
            match Reader::<DB>(row).due_renewal(now) {
                Ok(renewal) => due.extend(renewal),
                Err(error) => tracing::error!(%error, "the renewal of a certificate cannot be read"),
            }
        }
        let is_full = u32::try_from(rows.len()).is_ok_and(|count| count >= limit);
        let last = rows.last().filter(|_| is_full).map(|row| Reader::<DB>(row).text("id")).transpose()?;
        Ok((due, last))
    }
}
