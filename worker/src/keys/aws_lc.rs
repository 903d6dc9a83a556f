//! Keys by aws-lc-rs.

use shared::custom_csr::KeyType;

use super::{KeyGenerator, KeygenError, private_key::PrivateKey};

/// Makes keys of all types by aws-lc-rs.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl KeyGenerator for AwsLc {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        PrivateKey::generate(key_type).ok_or(KeygenError)
    }
}
