//! Quality checks: whether a key that a library made is fit to be used.
//!
//! They look for the faults that generators have had: a random source that repeats, primes that are too close or of a known form, a wrong
//! exponent. Numbers that are secret are compared as the octets that are wiped with the private key info; only public ones become big
//! integers, whose memory nobody wipes.

mod ec;
mod failed;
mod roca;
mod rsa;
#[cfg(test)]
mod tests;

use aws_lc_rs::signature::ParsedPublicKey;
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use shared::custom_csr::KeyType;

pub use self::failed::FailedChecks;
use super::private_key::PrivateKey;

/// Declares the checks with their names.
macro_rules! checks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)+) => {
        /// A check that every key has to pass before it is used.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Check { $($(#[$doc])* $variant,)+ }

        impl Check {
            /// Every check.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name of the check in the log and in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

checks! {
    /// The key is of the type that was asked for, and can be read.
    KeyType = "key_type";
    /// RSA: the modulus has exactly the bits that were asked for.
    ModulusSize = "modulus_size";
    /// RSA: the public exponent is 65537.
    PublicExponent = "public_exponent";
    /// RSA: the modulus has no factor under 2^16.
    SmallFactor = "small_factor";
    /// RSA: 100 rounds of Fermat's method find no factor.
    Fermat = "fermat";
    /// RSA: the primes differ by more than 2^(bits/2 - 100) (FIPS 186-5, A.1.3).
    ClosePrimes = "close_primes";
    /// RSA: the modulus does not have the form of the keys of CVE-2017-15361.
    Roca = "roca";
    /// The public key is a point on the curve, and not the point at infinity.
    Point = "point";
    /// The private key is a number from 1 to n - 1.
    Scalar = "scalar";
    /// The public key verifies a signature of the private key.
    Signature = "signature";
    /// The key is not in the list of blocked keys.
    Blocked = "blocked";
    /// The database has no such key.
    InUse = "in_use";
}

/// A key failed this check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a new key failed the check {}", .0.name())]
pub struct Unfit(pub Check);

/// What a key signs for its own check, where it signs nothing else. Nobody gets the signature.
const MESSAGE: &[u8] = b"csrd: pairwise consistency of a new key";

/// A new key that passed the checks of its numbers. What it signs is verified, with its public key: that is the last check.
pub struct NewKey<'a> {
    key: &'a PrivateKey,
    public_key: ParsedPublicKey,
}

/// Checks the numbers of a new key; `private_key_info` is the same key, encoded.
///
/// # Errors
///
/// The first check that it fails.
pub fn check<'a>(key_type: KeyType, key: &'a PrivateKey, private_key_info: &[u8]) -> Result<NewKey<'a>, Unfit> {
    if let Some(bits) = key_type.rsa_bits() {
        rsa::check(private_key_info, bits)?;
    } else if key.key_type() != key_type {
        return Err(Unfit(Check::KeyType));
    }
    let public_key = if let Some(curve) = ec::Curve::of(key_type) {
        let scalar = key.ec_scalar().ok_or(Unfit(Check::KeyType))?;
        if !curve.has_in_range(scalar.as_ref()) {
            return Err(Unfit(Check::Scalar));
        }
        curve.point(key.public_key())
    } else {
        key.parsed_public_key()
    };
    Ok(NewKey { key, public_key: public_key.ok_or(Unfit(Check::Point))? })
}

impl NewKey<'_> {
    /// Makes one signature for the check alone: of a key whose CSR comes later.
    ///
    /// # Errors
    ///
    /// [`Check::Signature`] if the public key does not verify it.
    pub fn check_signature(&self) -> Result<(), Unfit> {
        self.sign(MESSAGE).map(drop).map_err(|_| Unfit(Check::Signature))
    }
}

impl PublicKeyData for NewKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for NewKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.key.sign(message)?;
        self.public_key.verify_sig(message, &signature).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature)
    }
}
