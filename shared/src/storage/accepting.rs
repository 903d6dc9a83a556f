//! What accepting a custom CSR writes: its quota, its row, its job, its idempotency record and its audit entry, together.

use super::{
    Acceptance, Dialect, IDEMPOTENCY_KEY_LIFE, IdempotencyKey, NewCustomCsr, ScopeGrant, SqlStore, dialect::NewJob, lent::Lent,
    parameters::insert_values, rows::Reader, statements as sql, value::values,
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    error::StoreError,
    ids::Scope,
    job::GenerateCsrJob,
    model::{CustomCsr, Status},
};

impl<DB: Dialect> SqlStore<DB> {
    /// What is refused has to be rolled back.
    pub(super) async fn accept(
        &self,
        tx: &mut Lent<DB>,
        new: &NewCustomCsr,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Acceptance, StoreError> {
        if let Some(earlier) = self.claim_key(tx, new, now).await? {
            return Ok(earlier);
        }
        let taken = self.fetch(tx, sql::TAKE_QUOTA, values![new.scope.to_string()]).await?;
        let Some(row) = taken.first() else {
            let grant = self.fetch(tx, sql::FIND_SCOPE, values![new.scope.to_string()]).await?;
            let grant = grant.first().map(|row| Reader::<DB>(row).grant()).transpose()?;
            return Ok(match grant.filter(|grant| grant.granted) {
                None => Acceptance::NotGranted,
                Some(ScopeGrant { quota: None, .. }) => Acceptance::NoQuota,
                Some(ScopeGrant { quota: Some(quota), .. }) => Acceptance::QuotaUsedUp(quota),
            });
        };
        let account = Reader::<DB>(row).account()?;
        let account = match &new.scope {
            Scope::Zone(_) => account,
            Scope::Account(id) => Some(id.clone()),
        };
        let job = NewJob::new(GenerateCsrJob::new(new.id));
        self.execute(tx, sql::INSERT_CUSTOM_CSR, insert_values(new, account.as_ref(), &job.id, now)?).await?;
        self.push(tx, job).await?;
        let action = if new.replaces.is_some() { Action::Rekey } else { Action::Create };
        self.record(tx, &NewEntry::custom_csr(action, new.id, &new.scope), actor, now).await?;
        let accepted = CustomCsr {
            id: new.id,
            scope: new.scope.clone(),
            account,
            status: Status::Pending,
            error: None,
            created_at: now,
            updated_at: now,
            request: new.request.clone(),
            csr_pem: None,
            replaces: new.replaces,
            certificate_ids: Vec::new(),
        };
        Ok(Acceptance::Accepted(Box::new(accepted)))
    }

    /// Claims the Idempotency-Key of a request, if it has one; what is to be answered where it came before. Of several at once the
    /// others wait here for the first to commit.
    async fn claim_key(&self, tx: &mut Lent<DB>, new: &NewCustomCsr, now: Timestamp) -> Result<Option<Acceptance>, StoreError> {
        let Some(IdempotencyKey { key_sha256, body_sha256 }) = new.idempotency_key.clone() else { return Ok(None) };
        let (scope, too_old) = (new.scope.to_string(), now.minus(IDEMPOTENCY_KEY_LIFE).micros());
        let claim = values![scope.clone(), key_sha256.clone(), body_sha256.clone(), new.id.to_string(), now.micros(), too_old];
        if self.execute(tx, sql::CLAIM_IDEMPOTENCY_KEY, claim).await? > 0 {
            return Ok(None);
        }
        let found = self.fetch(tx, sql::FIND_IDEMPOTENCY_KEY, values![scope, key_sha256]).await?;
        let Some(row) = found.first() else { return Err(StoreError::Unavailable("the idempotency record went away just now".to_owned())) };
        let row = Reader::<DB>(row);
        let same = row.blob("body_sha256")? == body_sha256;
        Ok(Some(if same { Acceptance::Replayed(row.custom_csr_id()?) } else { Acceptance::KeyReused }))
    }
}
