//! One key that tokens are verified with.

use jsonwebtoken::{Algorithm, DecodingKey, crypto};

/// One key.
pub(super) struct Key {
    pub kid: Option<String>,
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

impl Key {
    pub fn verifies(&self, signed: &str, signature: &str) -> bool {
        crypto::verify(signature, signed.as_bytes(), &self.decoding, self.algorithm).unwrap_or(false)
    }
}
