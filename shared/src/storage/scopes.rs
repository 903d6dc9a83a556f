//! Scopes: what zones and accounts were granted, and how much of it they use.

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Lent, Reader, Sql, corrupt, statements, values},
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
    /// How many custom CSRs it may have, if a quota was allocated.
    pub quota: Option<u32>,
    /// How many it has, failed ones included.
    pub used: u32,
}

/// The part of the storage that is grants. Each method is one transaction, as in [`super::Store`].
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

    /// Takes the grant back; false if there is none. What exists stays readable and deletable.
    async fn revoke_scope(&self, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// All granted zones, or all granted accounts, by ID. `kind` is [`Scope::kind`]'s word.
    async fn list_scopes(&self, kind: &str) -> Result<Vec<ScopeGrant>, StoreError>;

    /// What a zone or an account was granted, if it ever was.
    async fn find_scope(&self, scope: &Scope) -> Result<Option<ScopeGrant>, StoreError>;
}

statements! {
    GRANT_SCOPE = "INSERT INTO scopes (scope, kind, granted, account_id, quota, updated_at) \
        VALUES ($1, $2, 1, $3, $4, $5) ON CONFLICT (scope) DO UPDATE SET granted = 1, account_id = excluded.account_id, \
        quota = excluded.quota, updated_at = excluded.updated_at";
    REVOKE_SCOPE = "UPDATE scopes SET granted = 0, updated_at = $2 WHERE scope = $1 AND granted = 1";
    LIST_SCOPES = "SELECT scope, granted, account_id, quota, used FROM scopes WHERE kind = $1 AND granted = 1 ORDER BY scope";
    FIND_SCOPE = "SELECT scope, granted, account_id, quota, used FROM scopes WHERE scope = $1";
}

impl<DB: Dialect> Reader<'_, DB> {
    pub(super) fn scope(&self) -> Result<Scope, StoreError> {
        self.parsed("scope", Scope::parse)
    }

    pub(super) fn account(&self) -> Result<Option<TenantId>, StoreError> {
        self.optional("account_id", TenantId::parse)
    }

    pub(super) fn grant(&self) -> Result<ScopeGrant, StoreError> {
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

impl<DB: Dialect> Sql<DB> {
    /// What a zone or an account was granted, as this transaction sees it.
    pub(super) async fn grant_of(&self, tx: &mut Lent<DB>, scope: &Scope) -> Result<Option<ScopeGrant>, StoreError> {
        let rows = self.fetch(tx, FIND_SCOPE, values![scope.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).grant()).transpose()
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
        let mut tx = self.sql.begin_write().await?;
        self.sql.execute(&mut tx, GRANT_SCOPE, values).await?;
        self.sql.record(&mut tx, &NewEntry::scope(Action::Grant, scope.into()), actor, now).await?;
        self.sql.commit(tx).await
    }

    async fn revoke_scope(&self, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, REVOKE_SCOPE, values![scope.to_string(), now.micros()]).await? == 0 {
            return Ok(false);
        }
        self.sql.record(&mut tx, &NewEntry::scope(Action::Revoke, scope.into()), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(true)
    }

    async fn list_scopes(&self, kind: &str) -> Result<Vec<ScopeGrant>, StoreError> {
        self.sql.rows(LIST_SCOPES, values![kind]).await?.iter().map(|row| Reader::<DB>(row).grant()).collect()
    }

    async fn find_scope(&self, scope: &Scope) -> Result<Option<ScopeGrant>, StoreError> {
        self.sql.rows(FIND_SCOPE, values![scope.to_string()]).await?.first().map(|row| Reader::<DB>(row).grant()).transpose()
    }
}
