//! What accepting a custom CSR writes: its quota, its row, its job, its idempotency record and its audit entry, together.

use super::{
    Acceptance, Dialect, IDEMPOTENCY_KEY_LIFE, IDEMPOTENCY_KEYS_MAX, IdempotencyKey, NewCustomCsr, ScopeGrant, SqlStore, dialect::NewJob,
    lent::Lent, parameters::insert_values, rows::Reader, statements as sql, value::values,
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    custom_csr::{CustomCsr, Status},
    ids::Scope,
    job::GenerateCsrJob,
    storage::StoreError,
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
        let (account, used) = (Reader::<DB>(row).account()?, Reader::<DB>(row).count("used")?);
        if let Some(refused) = self.check_bounds(tx, new, used).await? {
            // Others may share the commit: of what is refused nothing stays.
            self.execute(tx, sql::GIVE_BACK_QUOTA, values![new.scope.to_string()]).await?;
            return Ok(refused);
        }
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

    /// What is to be answered where the scope has too much of something already. The row of the scope is locked by now: no other
    /// transaction adds to what is counted here. A scope that has `used` custom CSRs has no more pending ones than that.
    async fn check_bounds(&self, tx: &mut Lent<DB>, new: &NewCustomCsr, used: u32) -> Result<Option<Acceptance>, StoreError> {
        if used > new.max_pending && self.has_as_many(tx, sql::COUNT_PENDING, &new.scope, new.max_pending).await? {
            return Ok(Some(Acceptance::TooManyPending));
        }
        // The claim of this request is among them.
        let keys = i64::from(IDEMPOTENCY_KEYS_MAX) + 1;
        let is_over = new.idempotency_key.is_some() && self.has_as_many(tx, sql::COUNT_IDEMPOTENCY_KEYS, &new.scope, keys).await?;
        Ok(is_over.then_some(Acceptance::TooManyKeys))
    }

    /// Whether a statement that counts up to `$2` comes to that.
    async fn has_as_many(
        &self,
        connection: &mut Lent<DB>,
        statement: &'static str,
        scope: &Scope,
        number: impl Into<i64> + Send,
    ) -> Result<bool, StoreError> {
        let number = number.into();
        let rows = self.fetch(connection, statement, values![scope.to_string(), number]).await?;
        Ok(rows.first().map(|row| Reader::<DB>(row).int("total")).transpose()? >= Some(number))
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
