//! The files that a TLS terminator reads.

use zeroize::Zeroizing;

use super::remembered::Remembered;

/// The chain, the leaf first.
pub const CHAIN: &str = "fullchain.pem";
/// The private key.
pub const KEY: &str = "privkey.pem";
/// The private key, and then the chain.
pub const COMBINED: &str = "combined.pem";
/// The same of the RSA certificate of a set. `HAProxy` takes both files of a set for `site.pem`.
pub const RSA: &str = "site.pem.rsa";
/// The same of the ECDSA certificate of a set.
pub const ECDSA: &str = "site.pem.ecdsa";
/// Those of a set.
pub const BUNDLE: [&str; 2] = [RSA, ECDSA];
/// All of them.
pub const NAMES: [&str; 5] = [CHAIN, KEY, COMBINED, RSA, ECDSA];

/// A private key and the chain for it, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The private key.
    pub key: Zeroizing<Vec<u8>>,
    /// The chain, the leaf first.
    pub chain: Vec<u8>,
}

impl Pair {
    /// Both in one, as they lie in combined.pem.
    pub fn combined(&self) -> Zeroizing<Vec<u8>> {
        let mut both = Zeroizing::new(Vec::with_capacity(self.key.len() + self.chain.len()));
        both.extend_from_slice(&self.key);
        both.extend_from_slice(&self.chain);
        both
    }
}

/// What an export writes.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate's.
    pub pair: Pair,
    /// What else of its set belongs beside combined.pem, by name, in the order of the names above.
    pub bundle: Vec<(&'static str, Zeroizing<Vec<u8>>)>,
}

impl Files {
    /// The names of the files, for such an export.
    pub fn names(&self, how: &Remembered) -> Vec<&'static str> {
        let is_written = |name: &&str| match *name {
            COMBINED => how.combined,
            RSA | ECDSA => self.bundle.iter().any(|(written, _)| written == name),
            _ => true,
        };
        NAMES.into_iter().filter(is_written).collect()
    }
}
