//! Renewals: the policies of zones, and the steps of each renewal. The row of the certificate says which step comes next: a process that is
//! killed between two steps loses nothing, and if two processes do the same step, only the first changes anything.

mod due;
mod steps;

use async_trait::async_trait;

#[cfg(test)]
pub(super) use self::{due::STATEMENTS as DUE_STATEMENTS, steps::STATEMENTS as STEP_STATEMENTS};
pub use self::{
    due::{DueRenewal, RenewalStep},
    steps::RenewalOutcome,
};
use super::{
    Dialect, SqlStore, StoreError,
    engine::{Reader, statements, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    handover::NewHandover,
    ids::Scope,
    renewal::{Fraction, RenewalKey, RenewalPolicy},
};

/// The part of the storage for renewals. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait Renewals: Send + Sync {
    /// Sets a zone's policy, or replaces it.
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

    /// Deletes a zone's policy, or returns false if it has none. Renewals that wait for a custom CSR end with it; those that have one can still be
    /// completed.
    async fn delete_renewal_policy(&self, zone: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// The renewals with a step to do at `now`, among the next `limit` certificates of granted zones with IDs after this one; and the ID to
    /// continue after, if there may be more.
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

statements! {
    PUT_POLICY = concat!(
        "INSERT INTO renewal_policies (", policy_columns!(), ") VALUES ($1, $2, $3, $4, $4) ON CONFLICT (scope) DO UPDATE SET \
        renewal_key = excluded.renewal_key, fraction = excluded.fraction, updated_at = excluded.updated_at RETURNING ", policy_columns!()
    );
    FIND_POLICY = concat!("SELECT ", policy_columns!(), " FROM renewal_policies WHERE scope = $1");
    DELETE_POLICY = "DELETE FROM renewal_policies WHERE scope = $1";
    FORGET_DUE = "UPDATE custom_certificates SET renewal_state = NULL, renewal_leaf = NULL, renewal_csr_id = NULL, renewal_error = NULL \
        WHERE scope = $1 AND renewal_state = 'due'";
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
        self.sql.list_due_renewals(after, limit, now).await
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
