//! Keys by aws-lc-rs.

use aws_lc_rs::{
    rsa,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use shared::custom_csr::KeyType;

use super::{KeyGenerator, KeygenError, private_key::PrivateKey};

/// Makes keys of both types by aws-lc-rs.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl KeyGenerator for AwsLc {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        match key_type {
            KeyType::Rsa2048 => rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map(PrivateKey::Rsa),
            KeyType::P256v1 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(PrivateKey::Ecdsa),
        }
        .map_err(|_| KeygenError)
    }
}
