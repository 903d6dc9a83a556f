//! The audit table: written within the transactions of what it records, and read.

use async_trait::async_trait;

use super::{Dialect, SqlStore, lent::Lent, rows::Reader, statements as sql, value::values};
use crate::{
    audit::{Actor, Entry, NewEntry},
    clock::Timestamp,
    error::StoreError,
    ids::Scope,
};

/// Which entries to read.
#[derive(Debug, Clone)]
pub struct AuditQuery {
    /// Those after this number.
    pub after: i64,
    /// Not before then.
    pub since: Timestamp,
    /// Those of this zone, and of all zones.
    pub zone: Option<Scope>,
    /// At most so many.
    pub limit: u32,
}

/// The part of the storage that is the audit table.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Records what changes nothing else here.
    async fn record_entries(&self, entries: &[NewEntry], actor: &Actor, now: Timestamp) -> Result<(), StoreError>;

    /// Entries in their order.
    async fn list_audit(&self, query: &AuditQuery) -> Result<Vec<Entry>, StoreError>;
}

impl<DB: Dialect> SqlStore<DB> {
    /// Writes an entry with what it records.
    pub(super) async fn record(&self, tx: &mut Lent<DB>, entry: &NewEntry, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let Actor { who, via, from, request_id } = actor.clone();
        let values =
            values![now.micros(), who, from, entry.action.as_str(), entry.resource(), entry.scope.as_str(), request_id, via.as_str()];
        self.execute(tx, sql::INSERT_AUDIT, values).await.map(drop)
    }
}

#[async_trait]
impl<DB: Dialect> AuditStore for SqlStore<DB> {
    async fn record_entries(&self, entries: &[NewEntry], actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin_write().await?;
        for entry in entries {
            self.record(&mut tx, entry, actor, now).await?;
        }
        self.commit(tx).await
    }

    async fn list_audit(&self, query: &AuditQuery) -> Result<Vec<Entry>, StoreError> {
        let zone = query.zone.as_ref().map(ToString::to_string);
        let values = values![query.after, query.since.micros(), zone, i64::from(query.limit)];
        self.rows(sql::LIST_AUDIT, values).await?.iter().map(|row| Reader::<DB>(row).audit_entry()).collect()
    }
}
