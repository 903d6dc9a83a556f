//! Does the steps of renewals, each in one transaction.

use super::due::DueRenewal;
use crate::{
    audit::Actor,
    clock::Timestamp,
    custom_csr::CustomCsr,
    events,
    handover::NewHandover,
    ids::CustomCsrId,
    metrics,
    renewal::RenewalKey,
    storage::{
        Acceptance, Dialect, MAX_PENDING, NewCustomCsr, Signal, SqlStore, StoreError,
        custom_csrs::{AcceptRequest, columns_with_certificates},
        engine::{Lent, Reader, Sql, statements, values},
    },
};

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// It is done.
    Done,
    /// No further custom CSR may be made. The tenant gets an event about it, once.
    Refused,
    /// Try again later.
    NotYet,
    /// The row or the policy has changed since, or is gone.
    Overtaken,
}

/// The condition that certificate `$1` of zone `$2` is as it was read: last changed at `$3`, with the renewal `$4` of the leaf `$5` by the
/// custom CSR `$6`.
macro_rules! as_read {
    () => {
        "id = $1 AND scope = $2 AND modified_at = $3 AND COALESCE(renewal_state, '') = $4 AND COALESCE(renewal_leaf, '') = $5 \
         AND COALESCE(renewal_csr_id, '') = $6"
    };
}

statements! {
    /// Keeps the policy of a zone, if it asks for this key, until the transaction ends.
    LOCK_POLICY = "UPDATE renewal_policies SET updated_at = updated_at WHERE scope = $1 AND renewal_key = $2";
    FIND_ANY_CSR = concat!("SELECT ", columns_with_certificates!(), " FROM custom_csrs WHERE id = $1");
    BEGIN_RENEWAL = concat!(
        "UPDATE custom_certificates SET renewal_state = 'due', renewal_leaf = $7, renewal_csr_id = $8, renewal_error = NULL WHERE ", as_read!()
    );
    /// A trigger writes the event.
    REFUSE_RENEWAL = concat!(
        "UPDATE custom_certificates SET renewal_state = 'due', renewal_leaf = $7, renewal_csr_id = NULL, renewal_error = $8, renewal_told = $9, \
        renewal_handover_id = NULL, renewal_told_at = $10 WHERE ", as_read!()
    );
    /// Keeps an active custom CSR until the transaction ends.
    LOCK_ACTIVE_CSR = "UPDATE custom_csrs SET updated_at = updated_at WHERE id = $1 AND status = 'active'";
    /// A trigger writes the event.
    ANNOUNCE_RENEWAL = concat!(
        "UPDATE custom_certificates SET renewal_state = 'csr_ready', renewal_told = $7, renewal_handover_id = $8, renewal_told_at = $9 WHERE ",
        as_read!()
    );
}

/// The part of the event beside the certificate.
fn event_data(csr: Option<&CustomCsr>, error: Option<&str>) -> Result<String, StoreError> {
    events::renewal_told(csr, error).map_err(|error| StoreError::Internal(error.to_string()))
}

impl<DB: Dialect> Sql<DB> {
    async fn find_any_csr(&self, tx: &mut Lent<DB>, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError> {
        let rows = self.fetch(tx, FIND_ANY_CSR, values![id.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()
    }

    /// Begins a renewal, if this process locks the row first.
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
    pub(super) async fn begin_renewal(&self, due: &DueRenewal, actor: &Actor, now: Timestamp) -> Result<RenewalOutcome, StoreError> {
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
            set_id: old.set_id,
            max_pending: MAX_PENDING,
        };
        let request = AcceptRequest { first: new, others: Vec::new(), actor: actor.clone(), now, traceparent: None };
        let decision = self.sql.accept(&mut tx, &[&request], true).await?.pop().flatten();
        let (kind, scope) = (old.scope.kind(), old.scope.id());
        let reason = match decision {
            Some(Acceptance::Accepted(accepted)) => {
                self.sql.commit(tx).await?;
                for csr in &accepted {
                    metrics::custom_csr_accepted(csr.request.key_type);
                }
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
        // This undoes all of it.
        drop(tx);
        self.refuse_renewal(due, &reason, now).await
    }

    /// Records why a renewal has no custom CSR. The tenant gets an event about it, once.
    async fn refuse_renewal(&self, due: &DueRenewal, reason: &str, now: Timestamp) -> Result<RenewalOutcome, StoreError> {
        if due.refused.is_some() {
            return Ok(RenewalOutcome::Refused);
        }
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, LOCK_POLICY, values![due.certificate.zone.to_string(), due.key.as_str()]).await? == 0 {
            return Ok(RenewalOutcome::Overtaken);
        }
        let mut values = due.as_read();
        values.extend(values![due.leaf(), reason, event_data(None, Some(reason))?, now.micros()]);
        if self.sql.execute(&mut tx, REFUSE_RENEWAL, values).await? == 0 {
            return Ok(RenewalOutcome::Overtaken);
        }
        self.sql.commit(tx).await?;
        Ok(RenewalOutcome::Refused)
    }

    pub(super) async fn announce_renewal(
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
        values.extend(values![event_data(Some(&csr), None)?, link.map(|link| link.id.to_string()), now.micros()]);
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
