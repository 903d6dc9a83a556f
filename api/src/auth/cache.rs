//! A cache of verified tokens, so that none is verified twice by the same keys.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::digest;

use super::claims::VerifiedToken;

/// The most tokens that the cache holds.
pub(super) const TOKENS_MAX: usize = 10_000;
/// The longest token that it holds something of, in bytes: what it names is about as long.
const TOKEN_MAX_BYTES: usize = 4 * 1024;

/// The SHA-256 of a whole token: the cache does not hold the token itself.
///
/// Its signature is part of it, although one may be written in two ways (ES256): without it, any signature would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of a token, or `None` if it is too long for the cache.
    pub fn of(token: &str) -> Option<Self> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        digest::digest(&digest::SHA256, token.as_bytes()).as_ref().try_into().ok().map(Self)
    }
}

/// Verified tokens in two halves: when the younger is full, the older is dropped. Tokens that were used meanwhile have moved to the younger.
#[derive(Default)]
pub(super) struct TokenCache(RwLock<Halves>);

#[derive(Default)]
struct Halves {
    younger: HashMap<TokenHash, Arc<VerifiedToken>>,
    older: HashMap<TokenHash, Arc<VerifiedToken>>,
}

impl TokenCache {
    /// What a verified token says. Its caller checks that it has not expired.
    pub fn find(&self, hash: &TokenHash) -> Option<Arc<VerifiedToken>> {
        let halves = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(verified) = halves.younger.get(hash) {
            return Some(Arc::clone(verified));
        }
        let verified = Arc::clone(halves.older.get(hash)?);
        drop(halves);
        self.insert(*hash, Arc::clone(&verified));
        Some(verified)
    }

    /// Adds a verified token.
    pub fn insert(&self, hash: TokenHash, verified: Arc<VerifiedToken>) {
        let mut halves = self.0.write().unwrap_or_else(PoisonError::into_inner);
        halves.older.remove(&hash);
        halves.younger.insert(hash, verified);
        if halves.younger.len() >= TOKENS_MAX / 2 {
            halves.older = mem::take(&mut halves.younger);
        }
    }

    /// Drops a token that expired.
    pub fn remove(&self, hash: &TokenHash) {
        let mut halves = self.0.write().unwrap_or_else(PoisonError::into_inner);
        halves.younger.remove(hash);
        halves.older.remove(hash);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        let halves = self.0.read().unwrap();
        halves.younger.len() + halves.older.len()
    }
}
