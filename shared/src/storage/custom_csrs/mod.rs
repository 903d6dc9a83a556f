//! Custom CSRs: accepted, read, listed, edited and deleted.

mod accept;
mod accept_request;
mod hidden;
mod ledger;
mod list;
pub(super) mod read;
mod rows;

use std::{iter::once, time::Duration};

use async_trait::async_trait;

pub(super) use self::{
    accept::Accepting,
    accept_request::AcceptRequest,
    read::{Reading, columns, columns_with_certificates, is_pending},
};
#[cfg(test)]
pub(super) use self::{
    accept::STATEMENTS as ACCEPT_STATEMENTS, hidden::STATEMENTS as HIDDEN_STATEMENTS, list::STATEMENTS as LIST_STATEMENTS,
    read::STATEMENTS as READ_STATEMENTS,
};
pub use self::{
    hidden::{Hidden, HiddenCsrs, Restoration},
    list::{Direction, ListQuery, Order, Page},
};
use super::{
    Dialect, Signal, SqlStore, StoreError,
    engine::{Reader, statements, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    bodies::edit::Edit,
    clock::Timestamp,
    custom_csr::{CustomCsr, CustomCsrRequest},
    ids::{CustomCsrId, Scope, SetId},
    trace,
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
    /// The set that it is one of, if any.
    pub set_id: Option<SetId>,
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
    /// It is stored, and so are all that were to be accepted with it: pending, each with a job to wake a worker, and counted against the quota.
    Accepted(Vec<CustomCsr>),
    /// The scope was not granted custom CSRs (1404).
    NotGranted,
    /// It was, but without a quota (1403).
    NoQuota,
    /// The quota, this large, is used up, or has not enough left for all (1465).
    QuotaUsedUp(u32),
    /// The scope has as many pending custom CSRs as it may have, or would have more (1470).
    TooManyPending,
    /// As many Idempotency-Keys of the scope are remembered as may be (1470).
    TooManyKeys,
    /// The same key came with the same body before and made these.
    Replayed(Vec<CustomCsrId>),
    /// The same key came with another body before (1466).
    KeyReused,
}

/// What became of an attempt to delete a custom CSR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone with its job and its expired certificates, and with its row and its sealed key unless it is hidden.
    Deleted,
    /// There is none.
    NotFound,
    /// A certificate that is not expired uses it (1420).
    InUse,
}

/// The part of the storage that is custom CSRs. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait CustomCsrs: Send + Sync {
    /// Stores a pending custom CSR with its job and its idempotency record, if grant, quota and the
    /// number of pending ones allow it: never one more than the quota or than [`NewCustomCsr::max_pending`].
    /// A key that came before decides first.
    async fn accept_custom_csr(&self, new: &NewCustomCsr, actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError>;

    /// Accepts the custom CSRs of a set as [`CustomCsrs::accept_custom_csr`] does one: all of them or none. Scope, key and bound are those of the
    /// first.
    async fn accept_set(&self, new: &[NewCustomCsr], actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError>;

    /// The custom CSRs of a set that are in this scope, the oldest first.
    async fn list_set(&self, scope: &Scope, set_id: SetId) -> Result<Vec<CustomCsr>, StoreError>;

    /// The custom CSR with this ID in this scope.
    async fn find_custom_csr(&self, scope: &Scope, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError>;

    /// One page of a scope's custom CSRs; empty past the last page.
    async fn list_custom_csrs(&self, scope: &Scope, query: &ListQuery) -> Result<Page, StoreError>;

    /// Changes name and description, or returns `None` if there is no such custom CSR.
    async fn edit_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        edit: &Edit,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CustomCsr>, StoreError>;

    /// Deletes a custom CSR with its sealed key, its job and its expired certificates and gives its quota back, unless a certificate
    /// that is not expired at `now` uses it.
    async fn delete_custom_csr(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<Deletion, StoreError>;
}

statements! {
    FIND_CUSTOM_CSR = concat!("SELECT ", read::columns_with_certificates!(), " FROM custom_csrs WHERE id = $1 AND scope = $2");
    LIST_SET = concat!("SELECT ", read::columns_with_certificates!(), " FROM custom_csrs WHERE set_id = $1 AND scope = $2 ORDER BY id");
    /// Name and description, each changed if the flag before it is 1. The search text has the name in it.
    EDIT_CUSTOM_CSR = "UPDATE custom_csrs SET name = CASE WHEN CAST($3 AS BIGINT) = 1 THEN $4 ELSE name END, \
        search_text = CASE WHEN CAST($3 AS BIGINT) = 1 THEN $5 ELSE search_text END, \
        description = CASE WHEN CAST($6 AS BIGINT) = 1 THEN $7 ELSE description END, updated_at = $8 WHERE id = $1 AND scope = $2";
    DELETE_CUSTOM_CSR = "DELETE FROM custom_csrs WHERE id = $1";
    GIVE_BACK_QUOTA = "UPDATE scopes SET used = used - 1 WHERE scope = $1";
}

#[async_trait]
impl<DB: Dialect> CustomCsrs for SqlStore<DB> {
    async fn accept_custom_csr(&self, new: &NewCustomCsr, actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError> {
        self.accept(new, &[], actor, now).await
    }

    async fn accept_set(&self, new: &[NewCustomCsr], actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError> {
        let Some((first, others)) = new.split_first() else { return Err(StoreError::Internal("a set of none".to_owned())) };
        self.accept(first, others, actor, now).await
    }

    async fn list_set(&self, scope: &Scope, set_id: SetId) -> Result<Vec<CustomCsr>, StoreError> {
        let rows = self.sql.rows(LIST_SET, values![set_id.to_string(), scope.to_string()]).await?;
        rows.iter().map(|row| Reader::<DB>(row).custom_csr()).collect()
    }

    async fn find_custom_csr(&self, scope: &Scope, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError> {
        self.reading.ask((id, scope.clone())).await
    }

    async fn list_custom_csrs(&self, scope: &Scope, query: &ListQuery) -> Result<Page, StoreError> {
        self.sql.page(scope, query).await
    }

    async fn edit_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        edit: &Edit,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CustomCsr>, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        let key = values![id.to_string(), scope.to_string()];
        let rows = self.sql.fetch(&mut tx, FIND_CUSTOM_CSR, key.clone()).await?;
        let Some(before) = rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()? else { return Ok(None) };
        if *edit == Edit::default() {
            return Ok(Some(before));
        }
        let (name, description) = (edit.name.clone(), edit.description.clone());
        let searched = list::search_text(name.clone().flatten().as_deref(), &before.request);
        let mut values = key.clone();
        values.extend(values![i64::from(name.is_some()), name.flatten(), searched]);
        values.extend(values![i64::from(description.is_some()), description.flatten(), now.micros()]);
        self.sql.execute(&mut tx, EDIT_CUSTOM_CSR, values).await?;
        let rows = self.sql.fetch(&mut tx, FIND_CUSTOM_CSR, key).await?;
        let Some(after) = rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()? else { return Ok(None) };
        self.sql.record(&mut tx, &NewEntry::custom_csr(Action::Edit, id, scope), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(Some(after))
    }

    async fn delete_custom_csr(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<Deletion, StoreError> {
        self.delete(scope, id, None, actor, now).await
    }
}

impl<DB: Dialect> SqlStore<DB> {
    async fn accept(&self, first: &NewCustomCsr, others: &[NewCustomCsr], actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError> {
        let traceparent = trace::traceparent();
        let request = AcceptRequest { first: first.clone(), others: others.to_vec(), actor: actor.clone(), now, traceparent };
        match self.accepting.ask(request).await {
            // The commit's answer was lost: what is there now decides, seen by another connection.
            Err(StoreError::Ambiguous(lost)) => match self.found(first, others).await {
                Ok(found) if !found.is_empty() => {
                    self.signals.send(Signal::Enqueued);
                    Ok(Acceptance::Accepted(found))
                }
                Ok(_) | Err(_) => Err(StoreError::Ambiguous(lost)),
            },
            other => other,
        }
    }

    /// Those of them that are there: all, unless one was deleted meanwhile, or none.
    async fn found(&self, first: &NewCustomCsr, others: &[NewCustomCsr]) -> Result<Vec<CustomCsr>, StoreError> {
        let mut found = Vec::new();
        for new in once(first).chain(others) {
            found.extend(self.find_custom_csr(&new.scope, new.id).await?);
        }
        Ok(found)
    }
}
