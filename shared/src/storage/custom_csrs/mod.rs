//! Custom CSRs as their tenants see them: accepted, found, listed, edited, deleted.

mod accept;
pub(in crate::storage) mod columns;
mod list;

use async_trait::async_trait;

use self::{columns::csr_columns_with_certificates, list::search_text};
use crate::{
    audit::{Action, Actor, NewEntry},
    bodies::edit::Edit,
    clock::Timestamp,
    custom_csr::CustomCsr,
    ids::{CustomCsrId, Scope},
    storage::{
        Dialect, SqlStore, StoreError,
        group_commit::{Write, Written},
        row::Reader,
        scopes::GIVE_BACK_QUOTA,
        signals::Signal,
        value::values,
    },
};

pub(in crate::storage) use self::accept::PURGE_IDEMPOTENCY_KEYS;
pub use self::{
    accept::{Acceptance, IDEMPOTENCY_KEY_LIFE, IDEMPOTENCY_KEYS_MAX, IdempotencyKey, MAX_PENDING, NewCustomCsr},
    list::{Direction, ListQuery, Order, Page},
};

/// What became of an attempt to delete a custom CSR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, and its sealed key, its job and its expired certificates with it.
    Deleted,
    /// There is none.
    NotFound,
    /// A certificate that is not expired uses it (1420).
    InUse,
}

/// The custom CSRs of zones and accounts. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait CustomCsrs: Send + Sync {
    /// Stores a pending custom CSR with its job and its idempotency record, if grant, quota and the
    /// number of pending ones allow it: never one more than the quota or than [`NewCustomCsr::max_pending`].
    /// A key that came before decides first.
    async fn accept_custom_csr(&self, new: &NewCustomCsr, actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError>;

    /// The custom CSR with this ID in this scope.
    async fn find_custom_csr(&self, scope: &Scope, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError>;

    /// One page of a scope's custom CSRs; empty past the last page.
    async fn list_custom_csrs(&self, scope: &Scope, query: &ListQuery) -> Result<Page, StoreError>;

    /// Changes name and description; none where there is no such custom CSR.
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

pub(in crate::storage) const FIND_CUSTOM_CSR: &str =
    concat!("SELECT ", csr_columns_with_certificates!(), " FROM custom_csrs WHERE id = $1 AND scope = $2");
/// Keeps others from deleting the row, and from using it for a certificate, until the transaction ends.
pub(in crate::storage) const LOCK_CUSTOM_CSR: &str =
    "UPDATE custom_csrs SET updated_at = updated_at WHERE id = $1 AND scope = $2 RETURNING job_id";
pub(in crate::storage) const DELETE_CUSTOM_CSR: &str = "DELETE FROM custom_csrs WHERE id = $1";
/// Name and description, each changed where the flag before it is 1. The search text has the name in it.
pub(in crate::storage) const EDIT_CUSTOM_CSR: &str = "UPDATE custom_csrs SET name = CASE WHEN CAST($3 AS BIGINT) = 1 THEN $4 ELSE name END, \
    search_text = CASE WHEN CAST($3 AS BIGINT) = 1 THEN $5 ELSE search_text END, \
    description = CASE WHEN CAST($6 AS BIGINT) = 1 THEN $7 ELSE description END, updated_at = $8 WHERE id = $1 AND scope = $2";

/// All statements, for the test that prepares them.
#[cfg(test)]
pub(in crate::storage) const ALL: &[&[&str]] =
    &[&[FIND_CUSTOM_CSR, LOCK_CUSTOM_CSR, DELETE_CUSTOM_CSR, EDIT_CUSTOM_CSR], accept::ALL, list::ALL];

#[async_trait]
impl<DB: Dialect> CustomCsrs for SqlStore<DB> {
    async fn accept_custom_csr(&self, new: &NewCustomCsr, actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError> {
        match self.write_grouped(Write::Accept(new.clone(), actor.clone(), now)).await.and_then(Written::acceptance) {
            // The commit's answer was lost: what is there now decides, seen by a fresh connection.
            Err(StoreError::Ambiguous(lost)) => match self.find_custom_csr(&new.scope, new.id).await {
                Ok(Some(found)) => {
                    self.signals.send(Signal::Enqueued);
                    Ok(Acceptance::Accepted(Box::new(found)))
                }
                Ok(None) | Err(_) => Err(StoreError::Ambiguous(lost)),
            },
            other => other,
        }
    }

    async fn find_custom_csr(&self, scope: &Scope, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError> {
        match &self.reads {
            Some(reads) => self.read_grouped(reads, scope, id).await,
            None => self.find_alone(scope, id).await,
        }
    }

    async fn list_custom_csrs(&self, scope: &Scope, query: &ListQuery) -> Result<Page, StoreError> {
        self.list(scope, query).await
    }

    async fn edit_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        edit: &Edit,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CustomCsr>, StoreError> {
        let mut tx = self.begin_write().await?;
        let key = values![id.to_string(), scope.to_string()];
        let rows = self.fetch(&mut tx, FIND_CUSTOM_CSR, key.clone()).await?;
        let Some(before) = rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()? else { return Ok(None) };
        if *edit == Edit::default() {
            return Ok(Some(before));
        }
        let (name, description) = (edit.name.clone(), edit.description.clone());
        let searched = search_text(name.clone().flatten().as_deref(), &before.request);
        let mut values = key.clone();
        values.extend(values![i64::from(name.is_some()), name.flatten(), searched]);
        values.extend(values![i64::from(description.is_some()), description.flatten(), now.micros()]);
        self.execute(&mut tx, EDIT_CUSTOM_CSR, values).await?;
        let rows = self.fetch(&mut tx, FIND_CUSTOM_CSR, key).await?;
        let Some(after) = rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()? else { return Ok(None) };
        self.record(&mut tx, &NewEntry::custom_csr(Action::Edit, id, scope), actor, now).await?;
        self.commit(tx).await?;
        Ok(Some(after))
    }

    async fn delete_custom_csr(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<Deletion, StoreError> {
        let mut tx = self.begin_write().await?;
        let locked = self.fetch(&mut tx, LOCK_CUSTOM_CSR, values![id.to_string(), scope.to_string()]).await?;
        let Some(row) = locked.first() else { return Ok(Deletion::NotFound) };
        let job_id = Reader::<DB>(row).text("job_id")?;
        if !self.delete_expired_certificates(&mut tx, id, actor, now).await? {
            return Ok(Deletion::InUse);
        }
        self.execute(&mut tx, DELETE_CUSTOM_CSR, values![id.to_string()]).await?;
        self.execute(&mut tx, DB::CANCEL_JOB, values![job_id]).await?;
        self.execute(&mut tx, GIVE_BACK_QUOTA, values![scope.to_string()]).await?;
        self.record(&mut tx, &NewEntry::custom_csr(Action::Delete, id, scope), actor, now).await?;
        self.commit(tx).await?;
        self.signals.send(Signal::Changed(id));
        Ok(Deletion::Deleted)
    }
}
