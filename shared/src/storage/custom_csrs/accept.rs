//! Accepts custom CSRs, a batch in one transaction: quotas, rows, jobs, idempotency records and audit entries, together.
//!
//! Quota, bounds and idempotency of a scope are decided in memory while its row is locked: no other transaction adds to what is counted.

use std::sync::Arc;

use super::{
    Acceptance, IDEMPOTENCY_KEY_LIFE, IDEMPOTENCY_KEYS_MAX, NewCustomCsr,
    accept_request::AcceptRequest,
    ledger::{Ledger, Record},
    rows::{KeyRow, QuotaRow, claim, jobs_and_rows, scope_rows},
};
use crate::{
    audit::{Action, NewEntry},
    custom_csr::CustomCsr,
    ids::{CustomCsrId, Scope},
    job::GENERATE_CSR_QUEUE,
    storage::{
        Dialect, Signal, Signals, StoreError,
        audit::{EntryRow, insert_audit},
        engine::{Failure, Lent, Outcome, Reader, Sql, Value, Work, given, given_rows, hex, statements, values},
        jobs::push_jobs,
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

/// Inserts the custom CSRs `$rows`.
macro_rules! insert_custom_csrs {
    ($db:ident $rows:literal) => {
        concat!(
            "INSERT INTO custom_csrs (id, scope, account_id, status, created_at, updated_at, country, state, locality, organization, \
             organizational_unit, common_name, name, description, sans, key_type, search_text, job_id, replaces, set_id, traceparent) \
             SELECT id, scope, account_id, 'pending', created_at, created_at, country, state, locality, organization, \
             organizational_unit, common_name, name, description, sans, key_type, search_text, job_id, replaces, set_id, traceparent FROM ",
            given!($db $rows: id TEXT, scope TEXT, account_id TEXT, created_at BIGINT, country TEXT, state TEXT, locality TEXT,
                organization TEXT, organizational_unit TEXT, common_name TEXT, name TEXT, description TEXT, sans TEXT, key_type TEXT,
                search_text TEXT, job_id TEXT, replaces TEXT, set_id TEXT, traceparent TEXT)
        )
    };
}

/// Adds what was accepted to what the scopes have used: `$rows`.
macro_rules! take_quota {
    ($db:ident $rows:literal) => {
        concat!(
            "UPDATE scopes SET used = used + given.accepted FROM ", given!($db $rows: scope TEXT, accepted BIGINT),
            " WHERE scopes.scope = given.scope"
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
    FIND_IDEMPOTENCY_KEYS(scope TEXT, key_sha256 BYTEA) = "SELECT scope, key_sha256, body_sha256, custom_csr_id AS id, custom_csr_ids, created_at \
        FROM idempotency_keys WHERE (scope, key_sha256) IN (SELECT given.scope, given.key_sha256 FROM ", ")";
    /// The pending custom CSRs of these scopes, counted up to `$2`.
    COUNT_PENDING(scope TEXT) = "SELECT given.scope, (SELECT COUNT(*) FROM (SELECT id FROM custom_csrs \
        WHERE custom_csrs.scope = given.scope AND status = 'pending' LIMIT $2) AS pending) AS total FROM ", "";
    /// The remembered keys of these scopes, counted up to `$2`.
    COUNT_IDEMPOTENCY_KEYS(scope TEXT) = "SELECT given.scope, (SELECT COUNT(*) FROM (SELECT key_sha256 FROM idempotency_keys \
        WHERE idempotency_keys.scope = given.scope LIMIT $2) AS remembered) AS total FROM ", "";
    /// Remembers keys, or takes over records that are too old to count. (`WHERE` tells SQLite that `ON` begins no join.)
    CLAIM_IDEMPOTENCY_KEYS(
        scope TEXT, key_sha256 BYTEA, body_sha256 BYTEA, custom_csr_id TEXT, custom_csr_ids TEXT, created_at BIGINT
    ) = "INSERT INTO idempotency_keys (scope, key_sha256, body_sha256, custom_csr_id, custom_csr_ids, created_at) \
        SELECT scope, key_sha256, body_sha256, custom_csr_id, custom_csr_ids, created_at FROM ", " WHERE TRUE \
        ON CONFLICT (scope, key_sha256) DO UPDATE SET body_sha256 = excluded.body_sha256, custom_csr_id = excluded.custom_csr_id, \
        custom_csr_ids = excluded.custom_csr_ids, custom_certificate_id = NULL, created_at = excluded.created_at WHERE idempotency_keys.created_at < excluded.created_at - CAST($2 AS BIGINT)";
    /// Custom CSRs `$1`, their jobs `$2` to `$4`, audit entries `$5` and quotas `$6`, in one trip to the database: several statements on SQLite,
    /// and one on PostgreSQL.
    WRITE_ACCEPTED {
        sqlite: concat!(
            insert_custom_csrs!(sqlite "$1"), "; ", push_jobs!(sqlite "$2" "$3" "$4"), "; ", insert_audit!(sqlite "$5"), "; ",
            take_quota!(sqlite "$6")
        ),
        postgres: concat!(
            "WITH custom_csr AS (", insert_custom_csrs!(postgres "$1"), "), job AS (", push_jobs!(postgres "$2" "$3" "$4"),
            "), entry AS (", insert_audit!(postgres "$5"), ") ", take_quota!(postgres "$6")
        ),
    };
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
    type Request = AcceptRequest;
    type Response = Acceptance;
    type Key = Scope;
    const TOGETHER: bool = true;

    fn key(request: &AcceptRequest) -> Scope {
        request.first.scope.clone()
    }

    async fn run(&self, requests: &[&AcceptRequest], waits: bool) -> Result<Vec<Outcome<Acceptance>>, Failure> {
        let mut tx = self.sql.begin_write().await.map_err(Failure::without_answer)?;
        let (decisions, write) = match self.sql.decide(&mut tx, requests, waits).await {
            Ok(decided) => decided,
            Err(error) => return Err(tx.failure(error)),
        };
        // A transaction that writes nothing is rolled back.
        if let Some(values) = write {
            self.sql.commit_with(tx, WRITE_ACCEPTED, values).await?;
            self.signals.send(Signal::Enqueued);
        }
        Ok(decisions.into_iter().map(|decision| decision.map_or(Outcome::Locked, |decision| Outcome::Answer(Ok(decision)))).collect())
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Decides a batch, and writes what is accepted.
    pub(in crate::storage) async fn accept(
        &self,
        tx: &mut Lent<DB>,
        requests: &[&AcceptRequest],
        waits: bool,
    ) -> Result<Vec<Option<Acceptance>>, StoreError> {
        let (decisions, write) = self.decide(tx, requests, waits).await?;
        if let Some(values) = write {
            self.execute(tx, WRITE_ACCEPTED, values).await?;
        }
        Ok(decisions)
    }

    /// Decides a batch, and claims its idempotency keys. With what is accepted, [`WRITE_ACCEPTED`] is to be run with these values.
    async fn decide(
        &self,
        tx: &mut Lent<DB>,
        requests: &[&AcceptRequest],
        waits: bool,
    ) -> Result<(Vec<Option<Acceptance>>, Option<Vec<Value>>), StoreError> {
        let mut ledger = Ledger::default();
        self.lock_scopes(tx, requests, waits, &mut ledger).await?;
        self.find_records(tx, requests, &mut ledger).await?;
        self.count_pending(tx, requests, &mut ledger).await?;
        let decisions: Vec<_> = requests.iter().map(|request| ledger.decide(request)).collect();
        let accepted = accepted_among(decisions.iter().map(Option::as_ref), requests);
        let quotas: Vec<_> = ledger.accepted.into_iter().map(|(scope, accepted)| QuotaRow { scope, accepted }).collect();
        let write = self.claimed(tx, &accepted, &quotas).await?;
        Ok((decisions, write))
    }

    /// Accepts custom CSRs that take the places of others in the quota: neither it nor the bounds of their scopes are asked for or changed. What
    /// became of each: accepted, or not granted.
    pub(in crate::storage) async fn accept_in_place(
        &self,
        tx: &mut Lent<DB>,
        requests: &[AcceptRequest],
    ) -> Result<Vec<Acceptance>, StoreError> {
        let (mut ledger, requests) = (Ledger::default(), requests.iter().collect::<Vec<_>>());
        self.lock_scopes(tx, &requests, true, &mut ledger).await?;
        let decisions: Vec<_> = requests.iter().map(|request| ledger.decide_in_place(request)).collect();
        let accepted = accepted_among(decisions.iter().map(Some), &requests);
        if let Some(values) = self.claimed(tx, &accepted, &[]).await? {
            self.execute(tx, WRITE_ACCEPTED, values).await?;
        }
        Ok(decisions)
    }

    async fn lock_scopes(
        &self,
        tx: &mut Lent<DB>,
        requests: &[&AcceptRequest],
        waits: bool,
        ledger: &mut Ledger,
    ) -> Result<(), StoreError> {
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
    async fn find_records(&self, tx: &mut Lent<DB>, requests: &[&AcceptRequest], ledger: &mut Ledger) -> Result<(), StoreError> {
        let keyed: Vec<_> = requests.iter().copied().filter(|request| request.first.idempotency_key.is_some()).collect();
        let Some(now) = keyed.iter().map(|request| request.now).min() else { return Ok(()) };
        let keys: Vec<_> = keyed
            .iter()
            .filter_map(|AcceptRequest { first, .. }| {
                let key = first.idempotency_key.as_ref()?;
                Some(KeyRow { scope: first.scope.to_string(), key_sha256: hex(&key.key_sha256) })
            })
            .collect();
        let too_old = now.minus(IDEMPOTENCY_KEY_LIFE).micros();
        for row in &self.fetch(tx, FIND_IDEMPOTENCY_KEYS, values![given_rows(&keys)?]).await? {
            let row = Reader::<DB>(row);
            let (scope, key) = (row.scope()?, row.blob("key_sha256")?);
            if row.int("created_at")? < too_old {
                ledger.old.insert((scope.to_string(), key));
            } else {
                ledger.records.insert((scope, key), Record { body_sha256: row.blob("body_sha256")?, custom_csr_ids: made(&row)? });
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
    async fn count_pending(&self, tx: &mut Lent<DB>, requests: &[&AcceptRequest], ledger: &mut Ledger) -> Result<(), StoreError> {
        let many = |new: &NewCustomCsr| {
            let all: usize = requests.iter().filter(|other| other.first.scope == new.scope).map(|request| request.all().count()).sum();
            ledger.grants.get(&new.scope).is_some_and(|grant| grant.used as usize + all > new.max_pending as usize)
        };
        let full: Vec<_> = requests.iter().copied().filter(|request| many(&request.first)).collect();
        let Some(most) = full.iter().map(|request| i64::from(request.first.max_pending)).max() else { return Ok(()) };
        for row in &self.fetch(tx, COUNT_PENDING, values![given_rows(&scope_rows(full))?, most]).await? {
            let row = Reader::<DB>(row);
            ledger.pending.insert(row.scope()?, row.int("total")?);
        }
        Ok(())
    }

    /// Claims the idempotency keys of what is accepted. The values of [`WRITE_ACCEPTED`], or `None` if nothing is.
    async fn claimed(
        &self,
        tx: &mut Lent<DB>,
        accepted: &[(&CustomCsr, &AcceptRequest)],
        quotas: &[QuotaRow],
    ) -> Result<Option<Vec<Value>>, StoreError> {
        if accepted.is_empty() {
            return Ok(None);
        }
        self.claim_keys(tx, accepted).await?;
        accepted_values(accepted, quotas).map(Some)
    }

    /// Remembers which idempotency keys were used for what is accepted.
    async fn claim_keys(&self, tx: &mut Lent<DB>, accepted: &[(&CustomCsr, &AcceptRequest)]) -> Result<(), StoreError> {
        let claims: Vec<_> =
            accepted.iter().filter(|(csr, request)| csr.id == request.first.id).filter_map(|(_, request)| claim(request)).collect();
        if claims.is_empty() {
            return Ok(());
        }
        let life = i64::try_from(IDEMPOTENCY_KEY_LIFE.as_micros()).unwrap_or(i64::MAX);
        let claimed = self.execute(tx, CLAIM_IDEMPOTENCY_KEYS, values![given_rows(&claims)?, life]).await?;
        // The version before claims keys before it locks scopes.
        if usize::try_from(claimed) != Ok(claims.len()) {
            return Err(StoreError::Unavailable("an idempotency record came up just now".to_owned()));
        }
        Ok(())
    }
}

/// The values of [`WRITE_ACCEPTED`].
fn accepted_values(accepted: &[(&CustomCsr, &AcceptRequest)], quotas: &[QuotaRow]) -> Result<Vec<Value>, StoreError> {
    let (jobs, rows) = jobs_and_rows(accepted)?;
    let entries: Vec<_> = accepted
        .iter()
        .map(|(csr, AcceptRequest { actor, now, .. })| {
            let action = if csr.replaces.is_some() { Action::Rekey } else { Action::Create };
            EntryRow::new(&NewEntry::custom_csr(action, csr.id, &csr.scope), actor, *now)
        })
        .collect();
    let at_once = 0_i64;
    Ok(values![given_rows(&rows)?, given_rows(&jobs)?, GENERATE_CSR_QUEUE, at_once, given_rows(&entries)?, given_rows(quotas)?])
}

/// What these decisions accept, each with its request.
fn accepted_among<'a>(
    decisions: impl Iterator<Item = Option<&'a Acceptance>>,
    requests: &[&'a AcceptRequest],
) -> Vec<(&'a CustomCsr, &'a AcceptRequest)> {
    let mut accepted = Vec::new();
    for (decision, request) in decisions.zip(requests) {
        if let Some(Acceptance::Accepted(csrs)) = decision {
            accepted.extend(csrs.iter().map(|csr| (csr, *request)));
        }
    }
    accepted
}

/// What an idempotency record says was made. A version before sets leaves the list of a record that it takes over as it is.
fn made<DB: Dialect>(record: &Reader<'_, DB>) -> Result<Vec<CustomCsrId>, StoreError> {
    let (first, parse) = (record.custom_csr_id()?, |list: &str| list.split(',').map(CustomCsrId::parse).collect::<Option<Vec<_>>>());
    let all = record.optional("custom_csr_ids", parse)?;
    Ok(all.filter(|all| all.first() == Some(&first)).unwrap_or_else(|| vec![first]))
}
