//! Tokens that were accepted, so that none is verified twice by the same keys.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::digest;

use super::claims::Judged;

/// The most tokens that are remembered.
pub(super) const TOKENS_MAX: usize = 10_000;
/// The longest token that is remembered, in bytes: what it names is about as long, and it is kept for each.
const TOKEN_MAX_BYTES: usize = 4 * 1024;

/// The SHA-256 of a whole token: the token itself is kept nowhere.
///
/// Its signature counts too, although one may be written in two ways (ES256): with the rest alone remembered, any signature would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    /// None where the token is too long to be remembered.
    pub fn of(token: &str) -> Option<Self> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        digest::digest(&digest::SHA256, token.as_bytes()).as_ref().try_into().ok().map(Self)
    }
}

/// Accepted tokens in two generations: when the younger is full, the older is forgotten, and what was asked for meanwhile has moved on.
#[derive(Default)]
pub(super) struct AcceptedTokens(RwLock<Generations>);

#[derive(Default)]
struct Generations {
    younger: HashMap<TokenHash, Arc<Judged>>,
    older: HashMap<TokenHash, Arc<Judged>>,
}

impl AcceptedTokens {
    /// What an accepted token says. Whether its time has come and is not over is for the caller to ask.
    pub fn find(&self, hash: &TokenHash) -> Option<Arc<Judged>> {
        let generations = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(judged) = generations.younger.get(hash) {
            return Some(Arc::clone(judged));
        }
        let judged = Arc::clone(generations.older.get(hash)?);
        drop(generations);
        self.insert(*hash, Arc::clone(&judged));
        Some(judged)
    }

    /// Remembers an accepted token.
    pub fn insert(&self, hash: TokenHash, judged: Arc<Judged>) {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        generations.older.remove(&hash);
        generations.younger.insert(hash, judged);
        if generations.younger.len() >= TOKENS_MAX / 2 {
            generations.older = mem::take(&mut generations.younger);
        }
    }

    /// Forgets a token whose time is over.
    pub fn remove(&self, hash: &TokenHash) {
        let mut generations = self.0.write().unwrap_or_else(PoisonError::into_inner);
        generations.younger.remove(hash);
        generations.older.remove(hash);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        let generations = self.0.read().unwrap();
        generations.younger.len() + generations.older.len()
    }
}
