//! Scopes: what zones and accounts were granted, and how much of their quota is used.

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    row::{Reader, corrupt},
    value::values,
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    ids::{Scope, TenantId},
};

/// What a zone or an account was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeGrant {
    /// The zone or account.
    pub scope: Scope,
    /// Whether it may make custom CSRs: false after a revocation.
    pub granted: bool,
    /// The account that a zone belongs to.
    pub account: Option<TenantId>,
    /// How many custom CSRs it may have; none: no quota was allocated.
    pub quota: Option<u32>,
    /// How many it has, failed ones included.
    pub used: u32,
}

/// Grants of zones and accounts. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait Scopes: Send + Sync {
    /// Grants custom CSRs to a zone or an account, or changes what was granted. A quota below use stops new ones only.
    async fn grant_scope(
        &self,
        scope: &Scope,
        account: Option<&TenantId>,
        quota: Option<u32>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Takes the grant back; false where there was none. What exists stays readable and deletable.
    async fn revoke_scope(&self, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// All granted zones, or all granted accounts, by ID. `kind` is [`Scope::kind`]'s word.
    async fn list_scopes(&self, kind: &str) -> Result<Vec<ScopeGrant>, StoreError>;

    /// What a zone or an account was granted; none where it never was.
    async fn find_scope(&self, scope: &Scope) -> Result<Option<ScopeGrant>, StoreError>;
}

pub(in crate::storage) const GRANT_SCOPE: &str = "INSERT INTO scopes (scope, kind, granted, account_id, quota, updated_at) \
    VALUES ($1, $2, 1, $3, $4, $5) ON CONFLICT (scope) DO UPDATE SET granted = 1, account_id = excluded.account_id, \
    quota = excluded.quota, updated_at = excluded.updated_at";
pub(in crate::storage) const REVOKE_SCOPE: &str = "UPDATE scopes SET granted = 0, updated_at = $2 WHERE scope = $1 AND granted = 1";
pub(in crate::storage) const LIST_SCOPES: &str =
    "SELECT scope, granted, account_id, quota, used FROM scopes WHERE kind = $1 AND granted = 1 ORDER BY scope";
pub(in crate::storage) const FIND_SCOPE: &str = "SELECT scope, granted, account_id, quota, used FROM scopes WHERE scope = $1";
/// Takes one of the scope's quota: the row's lock makes concurrent requests take turns, the condition never lets one too many by.
pub(in crate::storage) const TAKE_QUOTA: &str =
    "UPDATE scopes SET used = used + 1 WHERE scope = $1 AND granted = 1 AND used < quota RETURNING account_id, used";
pub(in crate::storage) const GIVE_BACK_QUOTA: &str = "UPDATE scopes SET used = used - 1 WHERE scope = $1";

/// All of the above, for the test that prepares them.
#[cfg(test)]
pub(in crate::storage) const ALL: &[&str] = &[GRANT_SCOPE, REVOKE_SCOPE, LIST_SCOPES, FIND_SCOPE, TAKE_QUOTA, GIVE_BACK_QUOTA];

impl<DB: Dialect> Reader<'_, DB> {
    pub(in crate::storage) fn scope(&self) -> Result<Scope, StoreError> {
        self.parsed("scope", Scope::parse)
    }

    pub(in crate::storage) fn account(&self) -> Result<Option<TenantId>, StoreError> {
        self.optional("account_id", TenantId::parse)
    }

    pub(in crate::storage) fn grant(&self) -> Result<ScopeGrant, StoreError> {
        let quota = self.optional_int("quota")?.map(|quota| u32::try_from(quota).map_err(|_| corrupt("quota"))).transpose()?;
        Ok(ScopeGrant {
            scope: self.scope()?,
            granted: self.int("granted")? == 1,
            account: self.account()?,
            quota,
            used: self.count("used")?,
        })
    }
}

#[async_trait]
impl<DB: Dialect> Scopes for SqlStore<DB> {
    async fn grant_scope(
        &self,
        scope: &Scope,
        account: Option<&TenantId>,
        quota: Option<u32>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let account = account.map(ToString::to_string);
        let values = values![scope.to_string(), scope.kind(), account, quota.map(i64::from), now.micros()];
        let mut tx = self.begin_write().await?;
        self.execute(&mut tx, GRANT_SCOPE, values).await?;
        self.record(&mut tx, &NewEntry::scope(Action::Grant, scope.into()), actor, now).await?;
        self.commit(tx).await
    }

    async fn revoke_scope(&self, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        if self.execute(&mut tx, REVOKE_SCOPE, values![scope.to_string(), now.micros()]).await? == 0 {
            return Ok(false);
        }
        self.record(&mut tx, &NewEntry::scope(Action::Revoke, scope.into()), actor, now).await?;
        self.commit(tx).await?;
        Ok(true)
    }

    async fn list_scopes(&self, kind: &str) -> Result<Vec<ScopeGrant>, StoreError> {
        self.rows(LIST_SCOPES, values![kind]).await?.iter().map(|row| Reader::<DB>(row).grant()).collect()
    }

    async fn find_scope(&self, scope: &Scope) -> Result<Option<ScopeGrant>, StoreError> {
        self.rows(FIND_SCOPE, values![scope.to_string()]).await?.first().map(|row| Reader::<DB>(row).grant()).transpose()
    }
}
