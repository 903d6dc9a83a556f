//! Checks of keys on the NIST curves.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, ParsedPublicKey};
use shared::custom_csr::KeyType;

/// The leading octet of a point that is not compressed (SEC 1, 2.3.3). The point at infinity has another one.
const UNCOMPRESSED: u8 = 4;

/// The order n of P-256, big-endian (SEC 2, 2.4.2).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
    0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The order n of P-384, big-endian (SEC 2, 2.5.1).
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a,
    0xcc, 0xc5, 0x29, 0x73,
];

/// A curve whose private keys are numbers below its order.
pub struct Curve {
    order: &'static [u8],
    algorithm: &'static EcdsaVerificationAlgorithm,
}

impl Curve {
    /// The curve of this key type, or `None`. An Ed25519 private key is any 32 octets.
    pub fn of(key_type: KeyType) -> Option<Self> {
        match key_type {
            KeyType::P256v1 => Some(Self { order: &P256_ORDER, algorithm: &ECDSA_P256_SHA256_ASN1 }),
            KeyType::P384 => Some(Self { order: &P384_ORDER, algorithm: &ECDSA_P384_SHA384_ASN1 }),
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 | KeyType::Ed25519 | KeyType::MlDsa44 => None,
        }
    }

    /// Whether a number, big-endian and as long as the order, is from 1 to n - 1.
    pub fn has_in_range(&self, scalar: &[u8]) -> bool {
        scalar.len() == self.order.len() && scalar.iter().any(|octet| *octet != 0) && scalar < self.order
    }

    /// The public key, or `None` if it is no point on the curve, or the point at infinity. aws-lc solves the curve's equation.
    pub fn point(&self, public_key: &[u8]) -> Option<ParsedPublicKey> {
        let is_uncompressed = public_key.first() == Some(&UNCOMPRESSED) && public_key.len() == 2 * self.order.len() + 1;
        if is_uncompressed { ParsedPublicKey::new(self.algorithm, public_key).ok() } else { None }
    }
}
