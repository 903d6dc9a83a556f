//! Makes pending rows active, a batch at a time: with keys that were made for them, or with keys from the key pool.

use std::{collections::HashSet, sync::Arc};

use super::{CompletionOutcome, GeneratedCsr};
use crate::{
    clock::Timestamp,
    ids::CustomCsrId,
    storage::{
        Dialect, PoolKey, Signal, Signals, StoreError,
        custom_csrs::is_pending,
        engine::{Failure, Lent, Outcome, Reader, Sql, Work, given, given_ids, given_rows, hex, statements, values},
    },
};

/// Makes pending rows active; the UNIQUE index refuses keys that another custom CSR has. `$more` says which of them are taken, and in which
/// order PostgreSQL does so.
macro_rules! complete {
    ($db:ident $($more:expr)*) => {
        concat!(
            "UPDATE custom_csrs SET status = 'active', csr_pem = given.csr_pem, spki_sha256 = given.spki_sha256, \
             master_key_id = given.master_key_id, sealed_private_key = given.sealed_private_key, updated_at = given.updated_at FROM ",
            given!($db id TEXT, csr_pem TEXT, spki_sha256 BYTEA, master_key_id TEXT, sealed_private_key BYTEA, updated_at BIGINT),
            " WHERE custom_csrs.id = given.id AND ",
            is_pending!(),
            $($more,)*
            " RETURNING custom_csrs.id"
        )
    };
}

/// Only rows whose keys are neither in the key pool nor those of a hidden custom CSR.
macro_rules! complete_outside_pool {
    ($db:ident $($more:expr)?) => {
        complete!($db " AND NOT EXISTS (SELECT 1 FROM pool_keys WHERE pool_keys.spki_sha256 = given.spki_sha256) \
            AND NOT EXISTS (SELECT 1 FROM hidden_custom_csrs AS hidden WHERE hidden.spki_sha256 = given.spki_sha256)" $($more)?)
    };
}

/// The pending ones of these rows.
macro_rules! pending {
    (sqlite) => {
        concat!("SELECT id FROM custom_csrs WHERE ", is_pending!(), " AND id IN (SELECT given.id FROM ", given!(sqlite id TEXT), ")")
    };
    (postgres $lock:literal) => {
        concat!("SELECT id FROM custom_csrs WHERE ", is_pending!(), " AND id = ANY (", given_ids!(), ")", $lock)
    };
}

statements! {
    /// Completes rows, and passes over those that others have locked. On SQLite one transaction at a time writes anyway.
    COMPLETE_FREE {
        sqlite: complete_outside_pool!(sqlite),
        postgres: complete_outside_pool!(postgres concat!(" AND custom_csrs.id = ANY (ARRAY(",
            pending!(postgres " ORDER BY id FOR NO KEY UPDATE SKIP LOCKED"), "))")),
    };
    /// Completes rows, and waits for them.
    COMPLETE { sqlite: complete_outside_pool!(sqlite), postgres: complete_outside_pool!(postgres),
    };
    /// The same where the key pool cannot be read.
    COMPLETE_WITHOUT_POOL { sqlite: complete!(sqlite), postgres: complete!(postgres),
    };
    FIND_PENDING { sqlite: pending!(sqlite), postgres: pending!(postgres ""),
    };
    /// Locks pending rows, and passes over those that others have locked.
    LOCK_FREE { sqlite: pending!(sqlite), postgres: pending!(postgres " ORDER BY id FOR NO KEY UPDATE SKIP LOCKED"),
    };
    /// Locks pending rows, and waits for them.
    LOCK { sqlite: pending!(sqlite), postgres: pending!(postgres " ORDER BY id FOR NO KEY UPDATE"),
    };
    /// The rows whose keys are already in use, by another custom CSR, hidden or not, or in the key pool. Runs only if a row was not completed.
    FIND_IN_USE(id TEXT, spki_sha256 BYTEA, pool_key_id TEXT) = "SELECT given.id FROM ",
        " WHERE EXISTS (SELECT 1 FROM custom_csrs WHERE custom_csrs.spki_sha256 = given.spki_sha256 AND custom_csrs.id <> given.id) \
        OR EXISTS (SELECT 1 FROM hidden_custom_csrs AS hidden WHERE hidden.spki_sha256 = given.spki_sha256) \
        OR EXISTS (SELECT 1 FROM pool_keys WHERE pool_keys.spki_sha256 = given.spki_sha256 AND pool_keys.id <> given.pool_key_id)";
    /// Deletes the keys of the key pool that are still under these leases.
    TAKE_POOL_KEYS(id TEXT, lease_id TEXT) =
        "DELETE FROM pool_keys WHERE (id, lease_id) IN (SELECT given.id, given.lease_id FROM ", ") RETURNING id";
}

/// A key and a CSR that were made, for which row, and from which key of the key pool.
pub(in crate::storage) struct Completion {
    pub id: CustomCsrId,
    pub made: GeneratedCsr,
    pub pool_key: Option<PoolKey>,
    pub now: Timestamp,
}

/// Makes pending rows active.
pub(in crate::storage) struct Completing<DB: Dialect> {
    pub sql: Arc<Sql<DB>>,
    pub signals: Arc<Signals>,
}

impl<DB: Dialect> Clone for Completing<DB> {
    fn clone(&self) -> Self {
        Self { sql: Arc::clone(&self.sql), signals: Arc::clone(&self.signals) }
    }
}

impl<DB: Dialect> Work for Completing<DB> {
    type Request = Completion;
    type Response = CompletionOutcome;
    type Key = CustomCsrId;
    /// Of two results for one row the second has to see what became of the first.
    const TOGETHER: bool = false;

    fn key(request: &Completion) -> CustomCsrId {
        request.id
    }

    async fn run(&self, requests: &[&Completion], waits: bool) -> Result<Vec<Outcome<CompletionOutcome>>, Failure> {
        let completions = match self.complete(requests, waits).await {
            // The database may have refused the key, or to look into the key pool. With several requests, each is tried by itself first.
            Err(failure) if failure.is_answer && requests.len() == 1 => match self.sql.find_in_use(requests).await {
                Ok(in_use) if !in_use.is_empty() => vec![Some(CompletionOutcome::KeyInUse)],
                Err(_) if requests[0].pool_key.is_none() => match self.sql.complete_without_pool(requests).await {
                    Ok(completions) => completions,
                    Err(_) => return Err(failure),
                },
                _ => return Err(failure),
            },
            completions => completions?,
        };
        for (request, completion) in requests.iter().zip(&completions) {
            if matches!(completion, Some(CompletionOutcome::Completed | CompletionOutcome::NotPending | CompletionOutcome::LeaseLost)) {
                self.signals.send(Signal::Changed(request.id));
            }
        }
        Ok(completions.into_iter().map(|completion| completion.map_or(Outcome::Locked, |answer| Outcome::Answer(Ok(answer)))).collect())
    }
}

impl<DB: Dialect> Completing<DB> {
    /// Completes a batch; nothing for rows that others have locked.
    async fn complete(&self, requests: &[&Completion], waits: bool) -> Result<Vec<Option<CompletionOutcome>>, Failure> {
        if requests.iter().all(|request| request.pool_key.is_none()) {
            // One statement is a transaction of its own.
            self.sql.complete_fresh(requests, waits).await.map_err(Failure::of_commit)
        } else {
            let mut tx = self.sql.begin_write().await.map_err(Failure::without_answer)?;
            let completions = match self.sql.complete_all(&mut tx, requests, waits).await {
                Ok(completions) => completions,
                Err(error) => return Err(tx.failure(error)),
            };
            self.sql.commit(tx).await.map_err(Failure::without_answer)?;
            Ok(completions)
        }
    }
}

#[derive(serde::Serialize)]
struct IdRow {
    id: String,
}

#[derive(serde::Serialize)]
struct LeaseRow<'a> {
    id: &'a str,
    lease_id: &'a str,
}

#[derive(serde::Serialize)]
struct KeyRow<'a> {
    id: String,
    spki_sha256: String,
    pool_key_id: &'a str,
}

#[derive(serde::Serialize)]
struct MadeRow<'a> {
    id: String,
    csr_pem: &'a str,
    spki_sha256: String,
    master_key_id: &'a str,
    sealed_private_key: String,
    updated_at: i64,
}

fn id_rows<'a>(requests: impl IntoIterator<Item = &'a &'a Completion>) -> Vec<IdRow> {
    requests.into_iter().map(|request| IdRow { id: request.id.to_string() }).collect()
}

fn made_rows<'a>(requests: impl IntoIterator<Item = &'a &'a Completion>) -> Vec<MadeRow<'a>> {
    let row = |Completion { id, made, now, .. }: &'a Completion| MadeRow {
        id: id.to_string(),
        csr_pem: &made.csr_pem,
        spki_sha256: hex(&made.spki_sha256),
        master_key_id: &made.master_key_id,
        sealed_private_key: hex(&made.sealed_private_key),
        updated_at: now.micros(),
    };
    requests.into_iter().map(|request| row(request)).collect()
}

fn ids<DB: Dialect>(rows: &[DB::Row]) -> Result<HashSet<String>, StoreError> {
    rows.iter().map(|row| Reader::<DB>(row).text("id")).collect()
}

impl<DB: Dialect> Sql<DB> {
    /// Completes rows with keys that were made for them; nothing for those that others have locked.
    async fn complete_fresh(&self, requests: &[&Completion], waits: bool) -> Result<Vec<Option<CompletionOutcome>>, StoreError> {
        let statement = if waits { COMPLETE } else { COMPLETE_FREE };
        let done = ids::<DB>(&self.write_returning(statement, values![given_rows(&made_rows(requests))?]).await?)?;
        let missing: Vec<_> = requests.iter().copied().filter(|request| !done.contains(&request.id.to_string())).collect();
        // Those that are pending all the same are locked by others.
        let locked = match (waits, missing.is_empty()) {
            (false, false) => ids::<DB>(&self.rows(FIND_PENDING, values![given_rows(&id_rows(&missing))?]).await?)?,
            _ => HashSet::new(),
        };
        // Nobody else had a lock on them: they are pending no longer, or their keys are in use.
        let in_use = if waits && !missing.is_empty() { self.find_in_use(&missing).await? } else { HashSet::new() };
        Ok(requests.iter().map(|request| completion(&request.id.to_string(), &done, &locked, &in_use)).collect())
    }

    /// Completes rows without a look into the key pool, which cannot be read: it keeps no row from being made. A key that lies there too is
    /// refused when it is taken from there.
    async fn complete_without_pool(&self, requests: &[&Completion]) -> Result<Vec<Option<CompletionOutcome>>, StoreError> {
        let done = ids::<DB>(&self.write_returning(COMPLETE_WITHOUT_POOL, values![given_rows(&made_rows(requests))?]).await?)?;
        let nothing = HashSet::new();
        Ok(requests.iter().map(|request| completion(&request.id.to_string(), &done, &nothing, &nothing)).collect())
    }

    /// Those of these rows whose keys another custom CSR or the key pool has.
    async fn find_in_use(&self, requests: &[&Completion]) -> Result<HashSet<String>, StoreError> {
        let rows = requests.iter().map(|request| KeyRow {
            id: request.id.to_string(),
            spki_sha256: hex(&request.made.spki_sha256),
            pool_key_id: request.pool_key.as_ref().map_or("", |key| &key.id),
        });
        let rows: Vec<_> = rows.collect();
        ids::<DB>(&self.rows(FIND_IN_USE, values![given_rows(&rows)?]).await?)
    }

    /// Completes rows of which some have a key from the key pool, each with its key or not at all.
    async fn complete_all(
        &self,
        tx: &mut Lent<DB>,
        requests: &[&Completion],
        waits: bool,
    ) -> Result<Vec<Option<CompletionOutcome>>, StoreError> {
        let all = given_rows(&id_rows(requests))?;
        let pending = ids::<DB>(&self.fetch(tx, if waits { LOCK } else { LOCK_FREE }, values![all.clone()]).await?)?;
        let locked = if pending.len() < requests.len() && !waits {
            ids::<DB>(&self.fetch(tx, FIND_PENDING, values![all]).await?)?
        } else {
            HashSet::new()
        };
        let held: Vec<_> = requests.iter().copied().filter(|request| pending.contains(&request.id.to_string())).collect();
        let leases: Vec<_> = held
            .iter()
            .filter_map(|request| request.pool_key.as_ref())
            .map(|PoolKey { id, lease_id, .. }| LeaseRow { id, lease_id })
            .collect();
        let taken = ids::<DB>(&self.fetch(tx, TAKE_POOL_KEYS, values![given_rows(&leases)?]).await?)?;
        let has_key = |request: &Completion| request.pool_key.as_ref().is_none_or(|key| taken.contains(&key.id));
        let ready: Vec<_> = held.into_iter().filter(|request| has_key(request)).collect();
        let done = ids::<DB>(&self.fetch(tx, COMPLETE, values![given_rows(&made_rows(&ready))?]).await?)?;
        let answer = |request: &Completion| {
            let id = request.id.to_string();
            let lost = pending.contains(&id) && !has_key(request);
            if lost { Some(CompletionOutcome::LeaseLost) } else { completion(&id, &done, &locked, &pending) }
        };
        Ok(requests.iter().map(|request| answer(request)).collect())
    }
}

/// What became of a row, or `None` if others have locked it. Of `in_use` those rows count that were not completed.
fn completion(id: &str, done: &HashSet<String>, locked: &HashSet<String>, in_use: &HashSet<String>) -> Option<CompletionOutcome> {
    if done.contains(id) {
        Some(CompletionOutcome::Completed)
    } else if locked.contains(id) {
        None
    } else if in_use.contains(id) {
        Some(CompletionOutcome::KeyInUse)
    } else {
        Some(CompletionOutcome::NotPending)
    }
}
