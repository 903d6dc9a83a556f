//! Accepts custom CSRs, a batch in one transaction: quotas, rows, jobs, idempotency records and audit entries, together.
//!
//! Quota, bounds and idempotency of a scope are decided in memory while its row is locked: no other transaction adds to what is counted.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Acceptance, IDEMPOTENCY_KEY_LIFE, IDEMPOTENCY_KEYS_MAX, NewCustomCsr,
    ledger::{Ledger, Record},
    list::search_text,
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    custom_csr::{CustomCsr, KeyType},
    ids::Scope,
    storage::{
        Dialect, Signal, Signals, StoreError,
        engine::{Failure, Lent, Outcome, Reader, Sql, Work, given, given_rows, hex, statements, values},
        jobs::{self, NewJob},
    },
};

/// The scopes that the JSON array `$1` names, in the order in which everybody locks them.
macro_rules! scopes {
    (sqlite) => {
        concat!("SELECT scope, granted, account_id, quota, used FROM scopes WHERE scope IN (SELECT given.scope FROM ", given!(sqlite scope TEXT), ")")
    };
    (postgres $lock:literal) => {
        concat!(
            "SELECT scope, granted, account_id, quota, used FROM scopes WHERE scope IN (SELECT given.scope FROM ",
            given!(postgres scope TEXT), ") ORDER BY scope FOR NO KEY UPDATE", $lock
        )
    };
}

statements! {
    /// Locks scopes, and passes over those that others have locked. On SQLite one transaction at a time writes anyway.
    LOCK_FREE_SCOPES { sqlite: scopes!(sqlite), postgres: scopes!(postgres " SKIP LOCKED"),
    };
    /// Locks scopes, and waits for them.
    LOCK_SCOPES { sqlite: scopes!(sqlite), postgres: scopes!(postgres ""),
    };
    FIND_SCOPES(scope TEXT) = "SELECT scope FROM scopes WHERE scope IN (SELECT given.scope FROM ", ")";
    FIND_IDEMPOTENCY_KEYS(scope TEXT, key_sha256 BYTEA) = "SELECT scope, key_sha256, body_sha256, custom_csr_id AS id, created_at \
        FROM idempotency_keys WHERE (scope, key_sha256) IN (SELECT given.scope, given.key_sha256 FROM ", ")";
    /// The pending custom CSRs of these scopes, counted up to `$2`.
    COUNT_PENDING(scope TEXT) = "SELECT given.scope, (SELECT COUNT(*) FROM (SELECT id FROM custom_csrs \
        WHERE custom_csrs.scope = given.scope AND status = 'pending' LIMIT $2) AS pending) AS total FROM ", "";
    /// The remembered keys of these scopes, counted up to `$2`.
    COUNT_IDEMPOTENCY_KEYS(scope TEXT) = "SELECT given.scope, (SELECT COUNT(*) FROM (SELECT key_sha256 FROM idempotency_keys \
        WHERE idempotency_keys.scope = given.scope LIMIT $2) AS remembered) AS total FROM ", "";
    INSERT_CUSTOM_CSRS(
        id TEXT, scope TEXT, account_id TEXT, created_at BIGINT, country TEXT, state TEXT, locality TEXT, organization TEXT,
        organizational_unit TEXT, common_name TEXT, name TEXT, description TEXT, sans TEXT, key_type TEXT, search_text TEXT, job_id TEXT,
        replaces TEXT, traceparent TEXT
    ) = "INSERT INTO custom_csrs (id, scope, account_id, status, created_at, updated_at, country, state, locality, organization, \
        organizational_unit, common_name, name, description, sans, key_type, search_text, job_id, replaces, traceparent) \
        SELECT id, scope, account_id, 'pending', created_at, created_at, country, state, locality, organization, \
        organizational_unit, common_name, name, description, sans, key_type, search_text, job_id, replaces, traceparent FROM ", "";
    /// Remembers keys, or takes over records that are too old to count. (`WHERE` tells SQLite that `ON` begins no join.)
    CLAIM_IDEMPOTENCY_KEYS(
        scope TEXT, key_sha256 BYTEA, body_sha256 BYTEA, custom_csr_id TEXT, created_at BIGINT
    ) = "INSERT INTO idempotency_keys (scope, key_sha256, body_sha256, custom_csr_id, created_at) \
        SELECT scope, key_sha256, body_sha256, custom_csr_id, created_at FROM ", " WHERE TRUE \
        ON CONFLICT (scope, key_sha256) DO UPDATE SET body_sha256 = excluded.body_sha256, custom_csr_id = excluded.custom_csr_id, \
        custom_certificate_id = NULL, created_at = excluded.created_at WHERE idempotency_keys.created_at < excluded.created_at - CAST($2 AS BIGINT)";
    TAKE_QUOTA(scope TEXT, accepted BIGINT) = "UPDATE scopes SET used = used + given.accepted FROM ", " WHERE scopes.scope = given.scope";
}

/// A custom CSR to accept, for whom, and when.
pub(in crate::storage) struct Request {
    pub new: NewCustomCsr,
    pub actor: Actor,
    pub now: Timestamp,
    /// Names the span of the request, if it has one.
    pub traceparent: Option<String>,
}

/// Accepts custom CSRs.
pub(in crate::storage) struct Accepting<DB: Dialect> {
    pub sql: Arc<Sql<DB>>,
    pub signals: Arc<Signals>,
}

impl<DB: Dialect> Clone for Accepting<DB> {
    fn clone(&self) -> Self {
        Self { sql: Arc::clone(&self.sql), signals: Arc::clone(&self.signals) }
    }
}

impl<DB: Dialect> Work for Accepting<DB> {
    type Request = Request;
    type Response = Acceptance;
    type Key = Scope;
    const TOGETHER: bool = true;

    fn key(request: &Request) -> Scope {
        request.new.scope.clone()
    }

    async fn run(&mut self, requests: &[&Request], waits: bool) -> Result<Vec<Outcome<Acceptance>>, Failure> {
        let mut tx = self.sql.begin_write().await.map_err(|error| Failure { error, is_answer: false })?;
        let decisions = match self.sql.accept(&mut tx, requests, waits).await {
            Ok(decisions) => decisions,
            Err(error) => return Err(tx.failure(error)),
        };
        // A transaction that writes nothing is rolled back.
        if decisions.iter().any(|decision| matches!(decision, Some(Acceptance::Accepted(_)))) {
            self.sql.commit(tx).await.map_err(|error| Failure { error, is_answer: false })?;
            self.signals.send(Signal::Enqueued);
        }
        Ok(decisions.into_iter().map(|decision| decision.map_or(Outcome::Locked, |decision| Outcome::Answer(Ok(decision)))).collect())
    }
}

#[derive(serde::Serialize)]
struct ScopeRow {
    scope: String,
}

#[derive(serde::Serialize)]
struct KeyRow {
    scope: String,
    key_sha256: String,
}

#[derive(serde::Serialize)]
struct ClaimRow {
    scope: String,
    key_sha256: String,
    body_sha256: String,
    custom_csr_id: String,
    created_at: i64,
}

#[derive(serde::Serialize)]
struct QuotaRow {
    scope: String,
    accepted: i64,
}

#[derive(serde::Serialize)]
struct CsrRow<'a> {
    id: String,
    scope: String,
    account_id: Option<String>,
    created_at: i64,
    country: &'a str,
    state: &'a str,
    locality: &'a str,
    organization: &'a str,
    organizational_unit: Option<&'a str>,
    common_name: &'a str,
    name: Option<&'a str>,
    description: Option<&'a str>,
    sans: String,
    key_type: &'static str,
    search_text: String,
    job_id: String,
    replaces: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

impl<'a> CsrRow<'a> {
    fn new(csr: &'a CustomCsr, job_id: String, traceparent: Option<&'a str>) -> Result<Self, StoreError> {
        let (request, subject) = (&csr.request, &csr.request.subject);
        Ok(Self {
            id: csr.id.to_string(),
            scope: csr.scope.to_string(),
            account_id: csr.account.as_ref().map(ToString::to_string),
            created_at: csr.created_at.micros(),
            country: &subject.country,
            state: &subject.state,
            locality: &subject.locality,
            organization: &subject.organization,
            organizational_unit: subject.organizational_unit.as_deref(),
            common_name: &subject.common_name,
            name: request.name.as_deref(),
            description: request.description.as_deref(),
            sans: serde_json::to_string(&request.sans).map_err(|error| StoreError::Internal(error.to_string()))?,
            key_type: request.key_type.as_str(),
            search_text: search_text(request.name.as_deref(), request),
            job_id,
            replaces: csr.replaces.map(|id| id.to_string()),
            traceparent,
        })
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Decides a batch, and writes what is accepted.
    pub(in crate::storage) async fn accept(
        &self,
        tx: &mut Lent<DB>,
        requests: &[&Request],
        waits: bool,
    ) -> Result<Vec<Option<Acceptance>>, StoreError> {
        let mut ledger = Ledger::default();
        self.lock_scopes(tx, requests, waits, &mut ledger).await?;
        self.find_records(tx, requests, &mut ledger).await?;
        self.count_pending(tx, requests, &mut ledger).await?;
        let decisions: Vec<_> = requests.iter().map(|request| ledger.decide(&request.new, request.now)).collect();
        let accepted: Vec<_> = decisions
            .iter()
            .zip(requests)
            .filter_map(|(decision, request)| match decision {
                Some(Acceptance::Accepted(csr)) => Some((&**csr, *request)),
                _ => None,
            })
            .collect();
        if !accepted.is_empty() {
            self.write_accepted(tx, &accepted).await?;
            let quotas: Vec<_> = ledger.accepted.into_iter().map(|(scope, accepted)| QuotaRow { scope, accepted }).collect();
            self.execute(tx, TAKE_QUOTA, values![given_rows(&quotas)?]).await?;
        }
        Ok(decisions)
    }

    /// Accepts custom CSRs that take the places of others in the quota: neither it nor the bounds of their scopes are asked for or changed. What
    /// became of each: accepted, or not granted.
    pub(in crate::storage) async fn accept_in_place(&self, tx: &mut Lent<DB>, requests: &[Request]) -> Result<Vec<Acceptance>, StoreError> {
        let (mut ledger, requests) = (Ledger::default(), requests.iter().collect::<Vec<_>>());
        self.lock_scopes(tx, &requests, true, &mut ledger).await?;
        let decisions: Vec<_> = requests.iter().map(|request| ledger.decide_in_place(&request.new, request.now)).collect();
        let accepted: Vec<_> = decisions
            .iter()
            .zip(&requests)
            .filter_map(|(decision, request)| match decision {
                Acceptance::Accepted(csr) => Some((&**csr, *request)),
                _ => None,
            })
            .collect();
        if !accepted.is_empty() {
            self.write_accepted(tx, &accepted).await?;
        }
        Ok(decisions)
    }

    async fn lock_scopes(&self, tx: &mut Lent<DB>, requests: &[&Request], waits: bool, ledger: &mut Ledger) -> Result<(), StoreError> {
        let wanted = scope_rows(requests.iter().copied());
        let names = given_rows(&wanted)?;
        let statement = if waits { LOCK_SCOPES } else { LOCK_FREE_SCOPES };
        for row in &self.fetch(tx, statement, values![names.clone()]).await? {
            let grant = Reader::<DB>(row).grant()?;
            ledger.grants.insert(grant.scope.clone(), grant);
        }
        if ledger.grants.len() < wanted.len() && !waits {
            // Those that exist, and did not come, are locked by others.
            for row in &self.fetch(tx, FIND_SCOPES, values![names]).await? {
                let scope = Reader::<DB>(row).scope()?;
                if !ledger.grants.contains_key(&scope) {
                    ledger.locked.insert(scope.to_string());
                }
            }
        }
        Ok(())
    }

    /// The idempotency records that the requests of a batch may meet, and how many others their scopes have.
    async fn find_records(&self, tx: &mut Lent<DB>, requests: &[&Request], ledger: &mut Ledger) -> Result<(), StoreError> {
        let keyed: Vec<_> = requests.iter().copied().filter(|request| request.new.idempotency_key.is_some()).collect();
        let Some(now) = keyed.iter().map(|request| request.now).min() else { return Ok(()) };
        let keys: Vec<_> = keyed
            .iter()
            .filter_map(|Request { new, .. }| {
                let key = new.idempotency_key.as_ref()?;
                Some(KeyRow { scope: new.scope.to_string(), key_sha256: hex(&key.key_sha256) })
            })
            .collect();
        let too_old = now.minus(IDEMPOTENCY_KEY_LIFE).micros();
        for row in &self.fetch(tx, FIND_IDEMPOTENCY_KEYS, values![given_rows(&keys)?]).await? {
            let row = Reader::<DB>(row);
            let (scope, key) = (row.scope()?, row.blob("key_sha256")?);
            if row.int("created_at")? < too_old {
                ledger.old.insert((scope.to_string(), key));
            } else {
                ledger.records.insert((scope, key), Record { body_sha256: row.blob("body_sha256")?, custom_csr_id: row.custom_csr_id()? });
            }
        }
        let (scopes, most) = (given_rows(&scope_rows(keyed))?, i64::from(IDEMPOTENCY_KEYS_MAX));
        for row in &self.fetch(tx, COUNT_IDEMPOTENCY_KEYS, values![scopes, most]).await? {
            let row = Reader::<DB>(row);
            ledger.keys.insert(row.scope()?, row.int("total")?);
        }
        Ok(())
    }

    /// The pending custom CSRs of those scopes that may have too many.
    async fn count_pending(&self, tx: &mut Lent<DB>, requests: &[&Request], ledger: &mut Ledger) -> Result<(), StoreError> {
        let many = |new: &NewCustomCsr| {
            let others = requests.iter().filter(|other| other.new.scope == new.scope).count();
            ledger.grants.get(&new.scope).is_some_and(|grant| grant.used as usize + others > new.max_pending as usize)
        };
        let full: Vec<_> = requests.iter().copied().filter(|request| many(&request.new)).collect();
        let Some(most) = full.iter().map(|request| i64::from(request.new.max_pending)).max() else { return Ok(()) };
        for row in &self.fetch(tx, COUNT_PENDING, values![given_rows(&scope_rows(full))?, most]).await? {
            let row = Reader::<DB>(row);
            ledger.pending.insert(row.scope()?, row.int("total")?);
        }
        Ok(())
    }

    async fn write_accepted(&self, tx: &mut Lent<DB>, accepted: &[(&CustomCsr, &Request)]) -> Result<(), StoreError> {
        let (jobs, rows) = jobs_and_rows(accepted)?;
        self.execute(tx, INSERT_CUSTOM_CSRS, values![given_rows(&rows)?]).await?;
        self.push(tx, &jobs, std::time::Duration::ZERO).await?;
        let claims: Vec<_> = accepted
            .iter()
            .filter_map(|(csr, Request { new, now, .. })| {
                let key = new.idempotency_key.as_ref()?;
                Some(ClaimRow {
                    scope: csr.scope.to_string(),
                    key_sha256: hex(&key.key_sha256),
                    body_sha256: hex(&key.body_sha256),
                    custom_csr_id: csr.id.to_string(),
                    created_at: now.micros(),
                })
            })
            .collect();
        if !claims.is_empty() {
            let life = i64::try_from(IDEMPOTENCY_KEY_LIFE.as_micros()).unwrap_or(i64::MAX);
            let claimed = self.execute(tx, CLAIM_IDEMPOTENCY_KEYS, values![given_rows(&claims)?, life]).await?;
            // The version before claims keys before it locks scopes.
            if usize::try_from(claimed) != Ok(claims.len()) {
                return Err(StoreError::Unavailable("an idempotency record came up just now".to_owned()));
            }
        }
        let entries: Vec<_> = accepted
            .iter()
            .map(|(csr, Request { actor, now, .. })| {
                let action = if csr.replaces.is_some() { Action::Rekey } else { Action::Create };
                (NewEntry::custom_csr(action, csr.id, &csr.scope), actor, *now)
            })
            .collect();
        self.record_all(tx, &entries).await
    }
}

/// The rows, and the jobs that wake workers for them. Keys that are made in no time share a job: enqueuing one costs more than such a key.
fn jobs_and_rows<'a>(accepted: &[(&'a CustomCsr, &'a Request)]) -> Result<(Vec<NewJob>, Vec<CsrRow<'a>>), StoreError> {
    let (mut jobs, mut rows, mut shared) = (Vec::<NewJob>::new(), Vec::new(), HashMap::<KeyType, String>::new());
    for (csr, request) in accepted {
        let key_type = csr.request.key_type;
        let job_id = if let Some(job_id) = shared.get(&key_type) {
            job_id.clone()
        } else {
            let job = NewJob::new(csr.id)?;
            let id = job.id.clone();
            jobs.push(job);
            if jobs::are_shared(key_type) {
                shared.insert(key_type, id.clone());
            }
            id
        };
        rows.push(CsrRow::new(csr, job_id, request.traceparent.as_deref())?);
    }
    Ok((jobs, rows))
}

/// Each scope once, in order.
fn scope_rows<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Vec<ScopeRow> {
    let names: BTreeSet<_> = requests.into_iter().map(|request| request.new.scope.to_string()).collect();
    names.into_iter().map(|scope| ScopeRow { scope }).collect()
}
