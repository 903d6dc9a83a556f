//! What the clients were told: it is what the database has to hold at the end.

use std::collections::{BTreeMap, HashMap};

use super::authority::Hash;

/// Unexpected events that are kept in words; all are counted.
const NAMED_MAX: usize = 20;

/// What a custom CSR is by what its client was told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Accepted, and not decided yet.
    Accepted,
    Active(Hash),
    Failed,
    /// Its deletion was confirmed.
    Deleted,
}

/// A certificate that was stored and not deleted.
#[derive(Clone)]
pub struct Stored {
    pub custom_csr_id: String,
    pub fingerprint: Hash,
}

#[derive(Default)]
pub struct Ledger {
    /// Requests by what they were for.
    pub requests: BTreeMap<&'static str, u64>,
    /// By status and code, or why there is none.
    pub answers: BTreeMap<String, u64>,
    pub csrs: HashMap<String, Fate>,
    /// The custom CSR of each key that was ever seen.
    keys: HashMap<Hash, String>,
    pub twice: u64,
    pub certificates: HashMap<String, Stored>,
    pub uploaded: u64,
    pub became_active: u64,
    pub became_failed: u64,
    pub deleted: u64,
    pub unexpected: u64,
    pub named: Vec<String>,
    pub faults: BTreeMap<&'static str, u64>,
    pub rotations: u64,
    /// Steps of a rotation that a fault stopped, and that were done again.
    pub steps_again: u64,
    /// What is kept, for reads of what is old.
    kept: Vec<(String, String)>,
}

impl Ledger {
    pub fn count(&mut self, purpose: &'static str, answer: String) {
        *self.requests.entry(purpose).or_default() += 1;
        *self.answers.entry(answer).or_default() += 1;
    }

    /// An answer or an event that no fault explains.
    pub fn unexpected(&mut self, what: String) {
        println!("UNEXPECTED: {what}");
        self.unexpected += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(what);
        }
    }

    pub fn accepted(&mut self, id: &str) {
        self.csrs.entry(id.to_owned()).or_insert(Fate::Accepted);
    }

    pub fn active(&mut self, id: &str, key: Hash) {
        self.csrs.insert(id.to_owned(), Fate::Active(key));
        self.became_active += 1;
        self.saw_key(id, key);
    }

    pub fn failed(&mut self, id: &str) {
        self.csrs.insert(id.to_owned(), Fate::Failed);
        self.became_failed += 1;
    }

    pub fn deleted(&mut self, id: &str) {
        self.csrs.insert(id.to_owned(), Fate::Deleted);
        self.deleted += 1;
    }

    /// Remembers whose key this is, for ever.
    pub fn saw_key(&mut self, id: &str, key: Hash) {
        let owner = self.keys.entry(key).or_insert_with(|| id.to_owned()).clone();
        if owner != id {
            self.twice += 1;
            self.unexpected(format!("the custom CSRs {owner} and {id} have one key"));
        }
    }

    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    pub fn stored(&mut self, certificate_id: &str, custom_csr_id: &str, fingerprint: Hash) {
        let stored = Stored { custom_csr_id: custom_csr_id.to_owned(), fingerprint };
        if self.certificates.insert(certificate_id.to_owned(), stored).is_none() {
            self.uploaded += 1;
        }
    }

    pub fn keep(&mut self, zone: &str, id: &str) {
        self.kept.push((zone.to_owned(), id.to_owned()));
    }

    /// Zone and ID of something that was kept, by whatever number.
    pub fn kept(&self, number: usize) -> Option<(String, String)> {
        self.kept.get(number % self.kept.len().max(1)).cloned()
    }

    pub fn total_requests(&self) -> u64 {
        self.requests.values().sum()
    }

    pub fn progress(&self) -> String {
        let errors: u64 = self.answers.iter().filter(|(answer, _)| !answer.starts_with('2')).map(|(_, count)| count).sum();
        format!(
            "{} requests, {errors} of them not answered with 2xx, {} unexpected; {} accepted, {} active, {} failed, {} deleted, {} keys twice; {} certificates; {} faults, {} rotations",
            self.total_requests(),
            self.unexpected,
            self.csrs.len(),
            self.became_active,
            self.became_failed,
            self.deleted,
            self.twice,
            self.certificates.len(),
            self.faults.values().sum::<u64>(),
            self.rotations,
        )
    }
}
