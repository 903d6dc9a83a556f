//! Storage: the contract ([`Store`]), written against by everything else, and its only implementation.
//!
//! Each method is one transaction: what it writes is written together or not at all. Times come from the caller.

mod audit;
mod certificates;
mod connect;
mod custom_csrs;
mod dialect;
mod error;
mod generation;
mod group_commit;
mod group_read;
mod kept;
mod key_pool;
mod lent;
mod maintenance;
mod master_keys;
mod notify;
mod open;
mod pool;
mod postgres;
mod postgres_pool;
mod row;
mod scopes;
mod signals;
mod sqlite;
mod store;
mod value;

#[cfg(test)]
mod contract_test;
#[cfg(test)]
mod statements_test;

use async_trait::async_trait;

pub use self::{
    audit::{AuditQuery, AuditRun, AuditStore},
    certificates::{
        CertificateChange, CertificatePage, CertificateQuery, CertificateRefusal, CertificateStore, Export, MAX_CERTIFICATES_OF_CSR,
        NewCertificate, NewChain, Replacement, StartedExport, UsableCsr,
    },
    connect::{Access, CopyError, Database, Location, Migrate, OpenError, Queue},
    custom_csrs::{
        Acceptance, CustomCsrs, Deletion, Direction, IDEMPOTENCY_KEY_LIFE, IDEMPOTENCY_KEYS_MAX, IdempotencyKey, ListQuery, MAX_PENDING,
        NewCustomCsr, Order, Page,
    },
    dialect::Dialect,
    error::StoreError,
    generation::{GeneratedCsr, Generation, Generations},
    key_pool::{NewPoolKey, PoolKey, PoolKeys, PooledCompletion},
    maintenance::{Maintenance, Purge, Sweep, Vitals},
    master_keys::{MasterKeyRow, MasterKeys, Registration, SealedRow},
    scopes::{ScopeGrant, Scopes},
    signals::{Changes, Signal, Signals},
    store::SqlStore,
};
#[cfg(doc)]
use crate::audit::Actor;

/// The storage that everything works on.
///
/// Every method is one transaction. [`StoreError::Unavailable`] means that nothing is known to be wrong with the call
/// and that it may be made again; [`StoreError::Ambiguous`] that it may have happened or not. What an [`Actor`] does is recorded in the
/// audit table in the same transaction.
#[async_trait]
pub trait Store:
    Scopes + CustomCsrs + Generations + PoolKeys + CertificateStore + MasterKeys + AuditStore + Maintenance + Send + Sync
{
    /// Whether the database answers and has our tables: a read as requests make them, in the same queue.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What became of the database's file, where it is no longer the one at its path: whatever is written to it is lost.
    fn moved(&self) -> Option<String>;

    /// Closes the connections; on SQLite it empties the write-ahead log into the database before.
    async fn close(&self);

    /// Tells of new jobs and of changes, of this process and, on PostgreSQL, of the others.
    fn signals(&self) -> &Signals;
}
