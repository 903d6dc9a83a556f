//! Accepting a custom CSR: its quota, its row, its job, its idempotency record and its audit entry are written together.

use std::time::Duration;

use super::search_text;
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    custom_csr::{CustomCsr, CustomCsrRequest, Status},
    ids::{CustomCsrId, Scope, TenantId},
    job::GenerateCsrJob,
    storage::{
        Dialect, SqlStore, StoreError,
        dialect::NewJob,
        lent::Lent,
        row::Reader,
        scopes::{FIND_SCOPE, GIVE_BACK_QUOTA, ScopeGrant, TAKE_QUOTA},
        value::{Value, values},
    },
};

/// A custom CSR about to be accepted.
#[derive(Debug, Clone)]
pub struct NewCustomCsr {
    /// Its ID, chosen by the caller.
    pub id: CustomCsrId,
    /// The zone or account it is made in.
    pub scope: Scope,
    /// What was asked for.
    pub request: CustomCsrRequest,
    /// The key that makes a repeated request harmless.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The custom CSR that this one is to replace.
    pub replaces: Option<CustomCsrId>,
    /// How many pending custom CSRs its scope may have, this one included.
    pub max_pending: u32,
}

/// An Idempotency-Key, hashed, with the body it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// SHA-256 of the token's subject and the key.
    pub key_sha256: Vec<u8>,
    /// SHA-256 of the body's bytes.
    pub body_sha256: Vec<u8>,
}

/// How long an Idempotency-Key is remembered.
pub const IDEMPOTENCY_KEY_LIFE: Duration = Duration::from_hours(24);

/// How many Idempotency-Keys of one zone or account are remembered. They outlive their custom CSRs, so no quota bounds them.
pub const IDEMPOTENCY_KEYS_MAX: u32 = 10_000;

/// How many custom CSRs of one zone or account may be pending, unless it is set otherwise.
pub const MAX_PENDING: u32 = 1_000;

/// What became of an attempt to accept a custom CSR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It is stored, pending, with a job to wake a worker, and counts against the quota.
    Accepted(Box<CustomCsr>),
    /// The scope was not granted custom CSRs (1404).
    NotGranted,
    /// It was, but without a quota (1403).
    NoQuota,
    /// The quota, this large, is used up (1465).
    QuotaUsedUp(u32),
    /// The scope has as many pending custom CSRs as it may have (1470).
    TooManyPending,
    /// As many Idempotency-Keys of the scope are remembered as may be (1470).
    TooManyKeys,
    /// The same key came with the same body before and made this one.
    Replayed(CustomCsrId),
    /// The same key came with another body before (1466).
    KeyReused,
}

/// The pending custom CSRs of scope `$1`, counted up to `$2`.
pub(in crate::storage) const COUNT_PENDING: &str =
    "SELECT COUNT(*) AS total FROM (SELECT id FROM custom_csrs WHERE scope = $1 AND status = 'pending' LIMIT $2) AS pending";
pub(in crate::storage) const INSERT_CUSTOM_CSR: &str = "INSERT INTO custom_csrs (id, scope, account_id, status, created_at, updated_at, country, \
    state, locality, organization, organizational_unit, common_name, name, description, sans, key_type, search_text, job_id, replaces) \
    VALUES ($1, $2, $3, 'pending', $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
/// Claims a key, or takes over a record that is too old to count.
pub(in crate::storage) const CLAIM_IDEMPOTENCY_KEY: &str = "INSERT INTO idempotency_keys (scope, key_sha256, body_sha256, custom_csr_id, created_at) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (scope, key_sha256) DO UPDATE SET body_sha256 = excluded.body_sha256, \
    custom_csr_id = excluded.custom_csr_id, created_at = excluded.created_at WHERE idempotency_keys.created_at < $6";
pub(in crate::storage) const FIND_IDEMPOTENCY_KEY: &str =
    "SELECT body_sha256, custom_csr_id AS id FROM idempotency_keys WHERE scope = $1 AND key_sha256 = $2";
/// The remembered keys of scope `$1`, counted up to `$2`.
pub(in crate::storage) const COUNT_IDEMPOTENCY_KEYS: &str =
    "SELECT COUNT(*) AS total FROM (SELECT key_sha256 FROM idempotency_keys WHERE scope = $1 LIMIT $2) AS remembered";
pub(in crate::storage) const PURGE_IDEMPOTENCY_KEYS: &str = "DELETE FROM idempotency_keys WHERE (scope, key_sha256) IN \
    (SELECT scope, key_sha256 FROM idempotency_keys WHERE created_at < $1 LIMIT $2)";

/// All of the above, for the test that prepares them.
#[cfg(test)]
pub(in crate::storage) const ALL: &[&str] =
    &[COUNT_PENDING, INSERT_CUSTOM_CSR, CLAIM_IDEMPOTENCY_KEY, FIND_IDEMPOTENCY_KEY, COUNT_IDEMPOTENCY_KEYS, PURGE_IDEMPOTENCY_KEYS];

impl<DB: Dialect> SqlStore<DB> {
    /// What is refused has to be rolled back.
    pub(in crate::storage) async fn accept(
        &self,
        tx: &mut Lent<DB>,
        new: &NewCustomCsr,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Acceptance, StoreError> {
        if let Some(earlier) = self.claim_key(tx, new, now).await? {
            return Ok(earlier);
        }
        let taken = self.fetch(tx, TAKE_QUOTA, values![new.scope.to_string()]).await?;
        let Some(row) = taken.first() else {
            let grant = self.fetch(tx, FIND_SCOPE, values![new.scope.to_string()]).await?;
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
            self.execute(tx, GIVE_BACK_QUOTA, values![new.scope.to_string()]).await?;
            return Ok(refused);
        }
        let account = match &new.scope {
            Scope::Zone(_) => account,
            Scope::Account(id) => Some(id.clone()),
        };
        let job = NewJob::new(GenerateCsrJob::new(new.id));
        self.execute(tx, INSERT_CUSTOM_CSR, insert_values(new, account.as_ref(), &job.id, now)?).await?;
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
        if used > new.max_pending && self.has_as_many(tx, COUNT_PENDING, &new.scope, new.max_pending).await? {
            return Ok(Some(Acceptance::TooManyPending));
        }
        // The claim of this request is among them.
        let keys = i64::from(IDEMPOTENCY_KEYS_MAX) + 1;
        let is_over = new.idempotency_key.is_some() && self.has_as_many(tx, COUNT_IDEMPOTENCY_KEYS, &new.scope, keys).await?;
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
        if self.execute(tx, CLAIM_IDEMPOTENCY_KEY, claim).await? > 0 {
            return Ok(None);
        }
        let found = self.fetch(tx, FIND_IDEMPOTENCY_KEY, values![scope, key_sha256]).await?;
        let Some(row) = found.first() else { return Err(StoreError::Unavailable("the idempotency record went away just now".to_owned())) };
        let row = Reader::<DB>(row);
        let same = row.blob("body_sha256")? == body_sha256;
        Ok(Some(if same { Acceptance::Replayed(row.custom_csr_id()?) } else { Acceptance::KeyReused }))
    }
}

/// The parameters of the statement that inserts a custom CSR.
pub(in crate::storage) fn insert_values(
    new: &NewCustomCsr,
    account: Option<&TenantId>,
    job_id: &str,
    now: Timestamp,
) -> Result<Vec<Value>, StoreError> {
    let request = &new.request;
    let subject = &request.subject;
    let sans = serde_json::to_string(&request.sans).map_err(|error| StoreError::Internal(error.to_string()))?;
    Ok(values![
        new.id.to_string(),
        new.scope.to_string(),
        account.map(ToString::to_string),
        now.micros(),
        subject.country.clone(),
        subject.state.clone(),
        subject.locality.clone(),
        subject.organization.clone(),
        subject.organizational_unit.clone(),
        subject.common_name.clone(),
        request.name.clone(),
        request.description.clone(),
        sans,
        request.key_type.as_str(),
        search_text(request.name.as_deref(), request),
        job_id,
        new.replaces.map(|id| id.to_string()),
    ])
}
