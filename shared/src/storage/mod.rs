//! Storage: the contract ([`Store`]), written against by everything else, and its only implementation.
//!
//! Each method is one transaction: what it writes is written together or not at all. Times come from the caller.

mod accepting;
mod audit;
mod certificates;
mod connect;
mod dialect;
mod error;
mod group_commit;
mod group_read;
mod kept;
mod lent;
mod notify;
mod parameters;
mod pool_keys;
mod postgres;
mod rows;
mod signals;
mod sql;
mod sqlite;
mod starting;
mod statements;
mod upkeep;
mod value;

#[cfg(test)]
mod contract_test;
#[cfg(test)]
mod statements_test;

use std::time::Duration;

use async_trait::async_trait;

pub use self::{
    audit::{AuditQuery, AuditRun, AuditStore},
    certificates::{
        CertificateChange, CertificatePage, CertificateQuery, CertificateRefusal, CertificateStore, Export, MAX_CERTIFICATES_OF_CSR,
        NewCertificate, NewChain, Replacement, StartedExport, UsableCsr,
    },
    connect::{Access, CopyError, Database, Location, Migrate, OpenError, Queue},
    dialect::Dialect,
    error::StoreError,
    pool_keys::{NewPoolKey, PoolKey, PoolKeys, PooledCompletion},
    signals::{Changes, Signal, Signals},
    sql::SqlStore,
};
use crate::{
    audit::Actor,
    bodies::edit::Edit,
    clock::Timestamp,
    custom_csr::{CustomCsr, CustomCsrRequest, KeyType, Status},
    ids::{CustomCsrId, Scope, TenantId},
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

/// In which order a list stands. Ties stand by ID, in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By the tenant's own name; without one last.
    Name,
    /// By account; without one last.
    AccountTag,
    /// By the time of acceptance.
    CreatedAt,
}

/// Which way a list stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Asc,
    /// Largest first.
    Desc,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Asc => Self::Desc,
            Self::Desc => Self::Asc,
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The page, from 1.
    pub page: u32,
    /// Rows a page.
    pub per_page: u32,
    /// What it is sorted by.
    pub order: Order,
    /// And which way.
    pub direction: Direction,
    /// Only those with this status.
    pub status: Option<Status>,
    /// Only those with this key type.
    pub key_type: Option<KeyType>,
    /// Only those with this text in name, common name or a SAN, ASCII case ignored.
    pub search: Option<String>,
}

impl ListQuery {
    /// Whether it may leave some rows of the scope out.
    #[must_use]
    pub const fn is_filtered(&self) -> bool {
        self.status.is_some() || self.key_type.is_some() || self.search.is_some()
    }
}

/// A page's rows and how many rows all pages have together.
#[derive(Debug, Clone)]
pub struct Page {
    /// The rows, in order.
    pub rows: Vec<CustomCsr>,
    /// Rows on all pages.
    pub total: u64,
}

/// A generation that was just started.
#[derive(Debug, Clone)]
pub struct Generation {
    /// What is to be made.
    pub custom_csr: CustomCsr,
    /// Generations of it that ended in an error so far.
    pub attempts: u32,
    /// Generations of it that were started since the last result, this one included.
    pub starts: u32,
    /// The job that it is started for.
    pub job_id: String,
}

/// What a generation made.
#[derive(Debug, Clone)]
pub struct GeneratedCsr {
    /// The certification request, PEM, with a newline at the end.
    pub csr_pem: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Which master key sealed the private key.
    pub master_key_id: String,
    /// The sealed private key.
    pub sealed_private_key: Vec<u8>,
}

/// A master key that the database remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyRow {
    /// Its ID.
    pub id: String,
    /// Whether new records are sealed with it.
    pub current: bool,
    /// Whether a custom CSR needs it. Pool keys do not count: they are made again.
    pub in_use: bool,
}

/// What became of an attempt to register a master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// It is the current one: the first that was ever registered, or registered before.
    Current,
    /// Another one, with this ID, is: nothing was changed.
    Other(String),
}

/// A sealed private key with all that it is bound to.
#[derive(Debug, Clone)]
pub struct SealedRow {
    /// The custom CSR's ID.
    pub id: CustomCsrId,
    /// Its scope.
    pub scope: Scope,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Which master key sealed it.
    pub master_key_id: String,
    /// The sealed private key.
    pub sealed_private_key: Vec<u8>,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sweep {
    /// Pending rows whose job was gone or dead and that got a new one.
    pub requeued: u64,
}

/// How the work goes, by the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// The database's time.
    pub now: Timestamp,
    /// Workers that were seen lately.
    pub workers: u64,
    /// Custom CSRs that are pending.
    pub pending: u64,
    /// For how many seconds the oldest of them has been; none: none is.
    pub oldest_pending_secs: Option<u64>,
}

/// What a purge deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purge {
    /// Finished jobs.
    pub jobs: u64,
    /// Workers that are long gone and named by no job.
    pub workers: u64,
    /// Idempotency records that no longer count.
    pub idempotency_keys: u64,
    /// Pool keys whose lease expired.
    pub pool_keys: u64,
}

/// The storage that everything works on.
///
/// Every method is one transaction. [`StoreError::Unavailable`] means that nothing is known to be wrong with the call
/// and that it may be made again; [`StoreError::Ambiguous`] that it may have happened or not. What an [`Actor`] does is recorded in the
/// audit table in the same transaction.
#[async_trait]
pub trait Store: CertificateStore + AuditStore + PoolKeys + Send + Sync {
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

    /// Counts a start of this row and tells what to make; none where it is gone or no longer pending.
    async fn start_generation(&self, id: CustomCsrId) -> Result<Option<Generation>, StoreError>;

    /// Starts up to `limit` rows more beside one: others that wait for a key of the same type and are due.
    ///
    /// Their own jobs go, and the job of `first` stands for them: while it lives, no sweep takes them for lost. A row that was started
    /// before without a result stays alone, and the others that its job stood for get jobs of their own again: one that kills its worker
    /// is not to take them with it time and again.
    async fn start_others(&self, first: &Generation, limit: u32) -> Result<Vec<Generation>, StoreError>;

    /// Makes a pending row active. False where it is gone or no longer pending: the caller wipes what it made.
    async fn complete_generation(&self, id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Result<bool, StoreError>;

    /// Counts one attempt beyond `attempts` and enqueues the next one after `delay`. False where another worker was faster.
    async fn retry_generation(&self, id: CustomCsrId, attempts: u32, delay: Duration, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends a pending row as failed, for this reason, which its tenant reads. False where it is gone or no longer pending.
    async fn fail_generation(&self, id: CustomCsrId, reason: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Takes a start back that ended without a result through no fault of the row's, and leaves the row to the sweep.
    async fn forget_start(&self, id: CustomCsrId) -> Result<(), StoreError>;

    /// Takes a start back like [`Store::forget_start`] and enqueues the next one after `delay`; with none, workers are woken
    /// at once. False if the row is gone or no longer pending.
    async fn defer_generation(&self, id: CustomCsrId, delay: Duration) -> Result<bool, StoreError>;

    /// Gives every pending row whose job is gone or dead, or dated far ahead by a clock that was wrong, a new job.
    async fn sweep(&self) -> Result<Sweep, StoreError>;

    /// Deletes jobs that ended before `ended_before`, workers that were last seen before `seen_before` and that no job names, and what no
    /// longer counts at `now`, the database's time: idempotency records, and pool keys whose lease expired; in batches, each a transaction.
    /// One process at a time; to the others there is nothing to do.
    async fn purge(&self, ended_before: Timestamp, seen_before: Timestamp, now: Timestamp) -> Result<Purge, StoreError>;

    /// Gives the jobs of all workers back at once. Only for a process that knows that no other works on this database.
    async fn release_jobs(&self) -> Result<u64, StoreError>;

    /// The master keys that the database remembers, oldest first.
    async fn list_master_keys(&self) -> Result<Vec<MasterKeyRow>, StoreError>;

    /// Registers this master key if none was ever registered. The check and the registration are one transaction, and concurrent calls
    /// take turns: of several first starts, one wins.
    async fn register_master_key(&self, id: &str, now: Timestamp) -> Result<Registration, StoreError>;

    /// The next `limit` sealed records of all custom CSRs, by ID, after this one.
    async fn list_sealed(&self, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<SealedRow>, StoreError>;

    /// Whether the database answers and has our tables: a read as requests make them, in the same queue.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The database's time, and how the work goes. A worker counts that was seen within `seen_within`.
    async fn vitals(&self, seen_within: Duration) -> Result<Vitals, StoreError>;

    /// What became of the database's file, where it is no longer the one at its path: whatever is written to it is lost.
    fn moved(&self) -> Option<String>;

    /// Closes the connections; on SQLite it empties the write-ahead log into the database before.
    async fn close(&self);

    /// Tells of new jobs and of changes, of this process and, on PostgreSQL, of the others.
    fn signals(&self) -> &Signals;
}
