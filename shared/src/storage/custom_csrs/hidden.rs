//! Deletes custom CSRs: at once, or hidden at first, so that they can be restored for a while.
//!
//! A hidden row moves to a table of its own, with its sealed key. So statements about custom CSRs do not find it, not even those of older
//! versions, and it counts as deleted everywhere. It counts against the quota until it is destroyed.

use std::time::Duration;

use async_trait::async_trait;

use super::{DELETE_CUSTOM_CSR, Deletion, FIND_CUSTOM_CSR, GIVE_BACK_QUOTA};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    custom_csr::{CustomCsr, Status},
    ids::{CustomCsrId, Scope},
    storage::{
        Dialect, Signal, SqlStore, StoreError,
        audit::EntryRow,
        engine::{Lent, Reader, Sql, statements, values},
        jobs::{NewJob, WAITING_BESIDE},
    },
};

/// What became of an attempt to restore a custom CSR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restoration {
    /// It is back as it was. One that was never deleted stays as it is.
    Restored(Box<CustomCsr>),
    /// There is none, or its time has passed (1419).
    NotFound,
    /// The scope is not granted custom CSRs (1404).
    NotGranted,
    /// It is pending, and the scope has as many pending custom CSRs as it may have (1470).
    TooManyPending,
}

/// Some hidden custom CSRs of a scope, and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Their IDs.
    pub ids: Vec<CustomCsrId>,
    /// All of the scope.
    pub total: u64,
}

/// The part of the storage for deleted custom CSRs. Each method is one transaction, as in [`super::super::Store`], but for the batches of
/// a sweep.
#[async_trait]
pub trait HiddenCsrs: Send + Sync {
    /// Deletes a custom CSR as [`super::CustomCsrs::delete_custom_csr`] does, but keeps it hidden: it can be restored until `destroy_after`, and
    /// counts against the quota until it is destroyed.
    async fn hide_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        destroy_after: Timestamp,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Deletion, StoreError>;

    /// Deletes a custom CSR for good, whether it is hidden or not.
    async fn destroy_custom_csr(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<Deletion, StoreError>;

    /// Brings a hidden custom CSR back if its time has not passed at `now`, unless it is pending and its scope has `max_pending` of those. A
    /// pending one gets a new job.
    async fn restore_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        max_pending: u32,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Restoration, StoreError>;

    /// The first `limit` hidden custom CSRs of a scope, by ID.
    async fn list_hidden(&self, scope: &Scope, limit: u32) -> Result<Hidden, StoreError>;

    /// Destroys the hidden custom CSRs whose time has passed at `now`, in batches, gives their quota back, and returns how many. One process at a
    /// time does it; the others find nothing to do.
    async fn destroy_due(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// Rows of one scope that one transaction destroys.
const BATCH: i64 = 500;

statements! {
    /// Keeps others from deleting the row, and from using it for a certificate, until the transaction ends. Returns until when it can be
    /// restored, if it is hidden.
    LOCK_CUSTOM_CSR = "UPDATE custom_csrs SET destroy_after = $3 WHERE id = $1 AND scope = $2 RETURNING job_id";
    /// Both tables have the same columns in the same order. Columns are not named: a version that does not know a new column would lose it.
    HIDE = "INSERT INTO hidden_custom_csrs SELECT * FROM custom_csrs WHERE id = $1";
    COUNT_HIDDEN = "UPDATE scopes SET hidden = hidden + 1 WHERE scope = $1";
    /// If it is pending, job `$4` wakes a worker.
    LOCK_HIDDEN = "UPDATE hidden_custom_csrs SET job_id = $4, starts = 0 WHERE id = $1 AND scope = $2 AND destroy_after > $3 RETURNING status";
    /// Locks the scope too.
    COUNT_RESTORED = "UPDATE scopes SET hidden = hidden - 1 WHERE scope = $1 AND granted = 1";
    COUNT_PENDING_OF_SCOPE = "SELECT COUNT(*) AS total FROM custom_csrs WHERE scope = $1 AND status = 'pending'";
    RESTORE = "INSERT INTO custom_csrs SELECT * FROM hidden_custom_csrs WHERE id = $1";
    DELETE_HIDDEN = "DELETE FROM hidden_custom_csrs WHERE id = $1 AND scope = $2";
    FORGET_TIME = "UPDATE custom_csrs SET destroy_after = NULL WHERE id = $1";
    GIVE_BACK_QUOTA_OF_HIDDEN = "UPDATE scopes SET used = used - CAST($2 AS BIGINT), hidden = hidden - CAST($2 AS BIGINT) WHERE scope = $1";
    LIST_HIDDEN = "SELECT id FROM hidden_custom_csrs WHERE scope = $1 ORDER BY id LIMIT $2";
    HIDDEN_OF_SCOPE = "SELECT hidden AS total FROM scopes WHERE scope = $1";
    /// Deletes up to `$2` rows of one scope whose time has passed at `$1`, and skips those that others have locked.
    DESTROY_DUE {
        sqlite: "DELETE FROM hidden_custom_csrs WHERE id IN (SELECT id FROM hidden_custom_csrs WHERE destroy_after <= $1 AND scope = \
            (SELECT scope FROM hidden_custom_csrs WHERE destroy_after <= $1 ORDER BY destroy_after, id LIMIT 1) LIMIT $2) RETURNING id, scope",
        postgres: "DELETE FROM hidden_custom_csrs WHERE id IN (SELECT id FROM hidden_custom_csrs WHERE destroy_after <= $1 AND scope = \
            (SELECT scope FROM hidden_custom_csrs WHERE destroy_after <= $1 ORDER BY destroy_after, id LIMIT 1) LIMIT $2 \
            FOR UPDATE SKIP LOCKED) RETURNING id, scope",
    };
}

impl<DB: Dialect> SqlStore<DB> {
    /// Deletes a custom CSR that is not hidden; with a time, it can be restored until then.
    pub(super) async fn delete(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        destroy_after: Option<Timestamp>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Deletion, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        let values = values![id.to_string(), scope.to_string(), destroy_after.map(Timestamp::micros)];
        let locked = self.sql.fetch(&mut tx, LOCK_CUSTOM_CSR, values).await?;
        let Some(row) = locked.first() else { return Ok(Deletion::NotFound) };
        let job_id = Reader::<DB>(row).text("job_id")?;
        if !self.sql.delete_expired_certificates(&mut tx, id, actor, now).await? {
            return Ok(Deletion::InUse);
        }
        // The job would find no row: the rows that share it get new jobs.
        let others = self.sql.fetch(&mut tx, WAITING_BESIDE, values![id.to_string()]).await?;
        let count = if destroy_after.is_some() {
            self.sql.execute(&mut tx, HIDE, values![id.to_string()]).await?;
            COUNT_HIDDEN
        } else {
            GIVE_BACK_QUOTA
        };
        self.sql.execute(&mut tx, DELETE_CUSTOM_CSR, values![id.to_string()]).await?;
        self.sql.cancel_job(&mut tx, job_id).await?;
        self.sql.requeue(&mut tx, &others).await?;
        self.sql.execute(&mut tx, count, values![scope.to_string()]).await?;
        self.sql.record(&mut tx, &NewEntry::custom_csr(Action::Delete, id, scope), actor, now).await?;
        self.sql.commit(tx).await?;
        self.signals.send(Signal::Changed(id));
        if !others.is_empty() {
            self.signals.send(Signal::Enqueued);
        }
        Ok(Deletion::Deleted)
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Destroys a hidden one, or returns false if there is none.
    async fn destroy_hidden(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        if self.execute(&mut tx, DELETE_HIDDEN, values![id.to_string(), scope.to_string()]).await? == 0 {
            return Ok(false);
        }
        self.execute(&mut tx, GIVE_BACK_QUOTA_OF_HIDDEN, values![scope.to_string(), 1_i64]).await?;
        self.record(&mut tx, &NewEntry::custom_csr(Action::Purge, id, scope), actor, now).await?;
        self.commit(tx).await?;
        Ok(true)
    }

    /// Destroys some of one scope whose time has passed, and returns how many.
    async fn destroy_some(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin_write().await?;
        if !self.may_sweep(&mut tx).await? {
            return Ok(0);
        }
        let rows = self.fetch(&mut tx, DESTROY_DUE, values![now.micros(), BATCH]).await?;
        let Some(first) = rows.first() else { return Ok(0) };
        let (scope, actor) = (Reader::<DB>(first).scope()?, Actor::worker("sweep"));
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        self.execute(&mut tx, GIVE_BACK_QUOTA_OF_HIDDEN, values![scope.to_string(), count]).await?;
        let entry = |row| {
            let id = Reader::<DB>(row).custom_csr_id()?;
            Ok::<_, StoreError>(EntryRow::new(&NewEntry::custom_csr(Action::Purge, id, &scope), &actor, now))
        };
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        self.record_all(&mut tx, &entries).await?;
        self.commit(tx).await?;
        Ok(count.unsigned_abs())
    }

    /// The custom CSR as this transaction sees it.
    async fn custom_csr_of(&self, tx: &mut Lent<DB>, scope: &Scope, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError> {
        let rows = self.fetch(tx, FIND_CUSTOM_CSR, values![id.to_string(), scope.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()
    }
}

#[async_trait]
impl<DB: Dialect> HiddenCsrs for SqlStore<DB> {
    async fn hide_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        destroy_after: Timestamp,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Deletion, StoreError> {
        self.delete(scope, id, Some(destroy_after), actor, now).await
    }

    async fn destroy_custom_csr(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<Deletion, StoreError> {
        let deletion = self.delete(scope, id, None, actor, now).await?;
        if deletion != Deletion::NotFound {
            return Ok(deletion);
        }
        if self.sql.destroy_hidden(scope, id, actor, now).await? {
            return Ok(Deletion::Deleted);
        }
        // It may have been restored between the two statements.
        self.delete(scope, id, None, actor, now).await
    }

    async fn restore_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        max_pending: u32,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Restoration, StoreError> {
        let (job, key) = (NewJob::new(id)?, values![id.to_string(), scope.to_string()]);
        let mut tx = self.sql.begin_write().await?;
        let lock = values![id.to_string(), scope.to_string(), now.micros(), job.id.clone()];
        let locked = self.sql.fetch(&mut tx, LOCK_HIDDEN, lock).await?;
        let Some(row) = locked.first() else {
            let found = self.sql.custom_csr_of(&mut tx, scope, id).await?;
            return Ok(found.map_or(Restoration::NotFound, |csr| Restoration::Restored(Box::new(csr))));
        };
        let is_pending = Reader::<DB>(row).parsed("status", Status::parse)? == Status::Pending;
        if self.sql.execute(&mut tx, COUNT_RESTORED, values![scope.to_string()]).await? == 0 {
            return Ok(Restoration::NotGranted);
        }
        if is_pending {
            let pending = self.sql.total(&mut tx, COUNT_PENDING_OF_SCOPE, values![scope.to_string()]).await?;
            if pending >= i64::from(max_pending) {
                return Ok(Restoration::TooManyPending);
            }
            self.sql.push(&mut tx, &[job], Duration::ZERO).await?;
        }
        self.sql.execute(&mut tx, RESTORE, values![id.to_string()]).await?;
        self.sql.execute(&mut tx, DELETE_HIDDEN, key).await?;
        self.sql.execute(&mut tx, FORGET_TIME, values![id.to_string()]).await?;
        let restored = self.sql.custom_csr_of(&mut tx, scope, id).await?;
        let restored = restored.ok_or_else(|| StoreError::Internal("the restored row is not there".to_owned()))?;
        self.sql.record(&mut tx, &NewEntry::custom_csr(Action::Restore, id, scope), actor, now).await?;
        self.sql.commit(tx).await?;
        if is_pending {
            self.signals.send(Signal::Enqueued);
        }
        Ok(Restoration::Restored(Box::new(restored)))
    }

    async fn list_hidden(&self, scope: &Scope, limit: u32) -> Result<Hidden, StoreError> {
        let mut tx = self.sql.begin_read().await?;
        let total = self.sql.total(&mut tx, HIDDEN_OF_SCOPE, values![scope.to_string()]).await?.unsigned_abs();
        let rows = self.sql.fetch(&mut tx, LIST_HIDDEN, values![scope.to_string(), i64::from(limit)]).await?;
        let ids = rows.iter().map(|row| Reader::<DB>(row).custom_csr_id()).collect::<Result<_, _>>()?;
        Ok(Hidden { ids, total })
    }

    async fn destroy_due(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut destroyed = 0;
        loop {
            match self.sql.destroy_some(now).await? {
                0 => return Ok(destroyed),
                some => destroyed += some,
            }
        }
    }
}
