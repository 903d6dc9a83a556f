//! What is known of the scopes of a batch, and what becomes of each request by it: quota, bounds and idempotency.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Acceptance, IDEMPOTENCY_KEYS_MAX, NewCustomCsr, accept_request::AcceptRequest};
use crate::{
    clock::Timestamp,
    custom_csr::{CustomCsr, Status},
    ids::{CustomCsrId, Scope},
    storage::ScopeGrant,
};

/// An idempotency record that counts.
pub(super) struct Record {
    pub body_sha256: Vec<u8>,
    pub custom_csr_ids: Vec<CustomCsrId>,
}

impl Record {
    fn answer(&self, body_sha256: &[u8]) -> Acceptance {
        if self.body_sha256 == body_sha256 { Acceptance::Replayed(self.custom_csr_ids.clone()) } else { Acceptance::KeyReused }
    }
}

/// What is known of the scopes of a batch, and what the batch adds to it.
#[derive(Default)]
pub(super) struct Ledger {
    /// Of the scopes that this transaction has locked.
    pub grants: HashMap<Scope, ScopeGrant>,
    /// Those that others have locked.
    pub locked: BTreeSet<String>,
    pub records: HashMap<(Scope, Vec<u8>), Record>,
    /// Records that are too old to count, but are still there.
    pub old: BTreeSet<(String, Vec<u8>)>,
    pub pending: HashMap<Scope, i64>,
    pub keys: HashMap<Scope, i64>,
    /// How many the batch accepts.
    pub accepted: BTreeMap<String, i64>,
}

impl Ledger {
    /// What becomes of a request, or `None` if others have its scope. What is accepted counts for those that come after it.
    pub fn decide(&mut self, request: &AcceptRequest) -> Option<Acceptance> {
        let (new, count) = (&request.first, 1 + u32::try_from(request.others.len()).unwrap_or(u32::MAX - 1));
        let key = new.idempotency_key.as_ref();
        if let Some(key) = key
            && let Some(record) = self.records.get(&(new.scope.clone(), key.key_sha256.clone()))
        {
            return Some(record.answer(&key.body_sha256));
        }
        let name = new.scope.to_string();
        if self.locked.contains(&name) {
            return None;
        }
        let Some(grant) = self.grants.get_mut(&new.scope).filter(|grant| grant.granted) else { return Some(Acceptance::NotGranted) };
        match grant.quota {
            None => return Some(Acceptance::NoQuota),
            Some(quota) if grant.used.saturating_add(count) > quota => return Some(Acceptance::QuotaUsedUp(quota)),
            Some(_) => {}
        }
        let pending = self.pending.entry(new.scope.clone()).or_default();
        // A scope has no more pending custom CSRs than custom CSRs.
        if grant.used.saturating_add(count) > new.max_pending && *pending + i64::from(count) > i64::from(new.max_pending) {
            return Some(Acceptance::TooManyPending);
        }
        if let Some(key) = key {
            let keys = self.keys.entry(new.scope.clone()).or_default();
            if !self.old.contains(&(name.clone(), key.key_sha256.clone())) {
                if *keys >= i64::from(IDEMPOTENCY_KEYS_MAX) {
                    return Some(Acceptance::TooManyKeys);
                }
                *keys += 1;
            }
            let record = Record { body_sha256: key.body_sha256.clone(), custom_csr_ids: request.all().map(|new| new.id).collect() };
            self.records.insert((new.scope.clone(), key.key_sha256.clone()), record);
        }
        *pending += i64::from(count);
        grant.used = grant.used.saturating_add(count);
        *self.accepted.entry(name).or_default() += i64::from(count);
        Some(Acceptance::Accepted(accepted(request, grant)))
    }

    /// What becomes of a request that takes the place of another custom CSR in the quota.
    pub fn decide_in_place(&self, request: &AcceptRequest) -> Acceptance {
        match self.grants.get(&request.first.scope).filter(|grant| grant.granted) {
            Some(grant) => Acceptance::Accepted(accepted(request, grant)),
            None => Acceptance::NotGranted,
        }
    }
}

fn accepted(request: &AcceptRequest, grant: &ScopeGrant) -> Vec<CustomCsr> {
    request.all().map(|new| pending(new, grant, request.now)).collect()
}

fn pending(new: &NewCustomCsr, grant: &ScopeGrant, now: Timestamp) -> CustomCsr {
    CustomCsr {
        id: new.id,
        scope: new.scope.clone(),
        account: match &new.scope {
            Scope::Zone(_) => grant.account.clone(),
            Scope::Account(id) => Some(id.clone()),
        },
        status: Status::Pending,
        error: None,
        created_at: now,
        updated_at: now,
        request: new.request.clone(),
        csr_pem: None,
        replaces: new.replaces,
        set_id: new.set_id,
        certificate_ids: Vec::new(),
    }
}
