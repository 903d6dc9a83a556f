//! Storage: the contract ([`Store`]), written against by everything else, and its only implementation.
//!
//! One file a subject: its trait, its types, its statements, its rows and its implementation. Below them, `engine` runs SQL on either
//! database. Each method is one transaction: what it writes is written together or not at all. Times come from the caller.

mod ari;
mod around;
mod audit;
mod certificates;
mod custom_csrs;
mod database;
mod engine;
mod error;
mod figures;
mod generation;
mod handovers;
mod incidents;
mod jobs;
mod key_holders;
mod key_pool;
mod maintenance;
mod master_keys;
mod measured;
mod renewals;
mod scopes;
mod sealed_records;
mod signals;
mod webhooks;

#[cfg(test)]
mod contract_test;
#[cfg(test)]
mod prepare_test;

use async_trait::async_trait;

pub use self::{
    ari::{AriStore, Asked, Unasked},
    around::{Around, AroundStore},
    audit::{AuditQuery, AuditRun, AuditStore},
    certificates::{
        CertificateChange, CertificatePage, CertificateQuery, CertificateRefusal, CertificateStore, Export, MAX_CERTIFICATES_OF_CSR,
        MatchedCertificate, NewCertificate, NewChain, Repeat, Replacement, StartedExport, UsableCsr,
    },
    custom_csrs::{
        Acceptance, CustomCsrs, Deletion, Direction, Hidden, HiddenCsrs, IDEMPOTENCY_KEY_LIFE, IDEMPOTENCY_KEYS_MAX, IdempotencyKey,
        ListQuery, MAX_PENDING, NewCustomCsr, Order, Page, Restoration,
    },
    database::{Database, SqlStore},
    engine::{Access, CopyError, Dialect, Location, Migrate, OpenError, PoolUse, Queue, Writer, WriterTurn},
    error::StoreError,
    figures::{FigureStore, Figures},
    generation::{CompletionOutcome, GeneratedCsr, Generation, Generations},
    handovers::{HANDOVER_KEPT_AFTER, HANDOVERS_KEPT, HandoverCreation, Handovers, MAX_HANDOVERS_OF_CSR},
    incidents::{Incidents, NewIncident, PlannedCertificate, Successor, TURN_MAX, Turn, Turned, Woken},
    key_holders::{KeyHolder, KeyHolders},
    key_pool::{NewPoolKey, PoolAddition, PoolKey, PoolKeys},
    maintenance::{Maintenance, Purge, Sweep, Vitals},
    master_keys::{MasterKeyRow, MasterKeyUse, MasterKeys, Registration, Retirement},
    measured::{ABANDONED, measured},
    renewals::{DueRenewal, RenewalOutcome, RenewalStep, Renewals},
    scopes::{ScopeGrant, Scopes},
    sealed_records::{Resealed, SealedRecord, SealedRecords, SealedRow},
    signals::{Changes, Signal, Signals},
    webhooks::{Attempt, Deliveries, Due, NewWebhook, Receiver, WebhookChange, WebhookCreation, Webhooks},
};

/// The storage that everything works on.
///
/// Every method of its parts is one transaction. [`StoreError::Unavailable`] means that nothing is known to be wrong with the call and that it
/// may be made again; [`StoreError::Ambiguous`] that it may have happened or not. What an [`Actor`](crate::audit::Actor) does is recorded in
/// the audit table in the same transaction.
#[async_trait]
pub trait Store:
    Scopes
    + CustomCsrs
    + HiddenCsrs
    + Generations
    + PoolKeys
    + CertificateStore
    + Handovers
    + MasterKeys
    + SealedRecords
    + KeyHolders
    + AuditStore
    + Maintenance
    + Webhooks
    + Deliveries
    + Renewals
    + AriStore
    + Incidents
    + FigureStore
    + Send
    + Sync
{
    /// Whether the database answers and has our tables: a read as requests make them, in the same queue.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What became of the database's file, if it is no longer the one at its path: whatever is written to it is lost.
    fn moved(&self) -> Option<String>;

    /// Waits until one of the storage's own tasks panics. The process has to end then: requests may wait for that task for ever.
    async fn failed(&self);

    /// Closes the connections; on SQLite it empties the write-ahead log into the database before.
    async fn close(&self);

    /// Tells of new jobs and of changes, of this process and, on PostgreSQL, of the others.
    fn signals(&self) -> &Signals;
}
