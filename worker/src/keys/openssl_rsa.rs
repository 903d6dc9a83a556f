//! RSA keys by OpenSSL, which needs two thirds of the time of aws-lc-rs.
//!
//! OpenSSL only generates the keys: aws-lc-rs parses and checks each key, signs, seals and hashes.

use openssl::{
    error::ErrorStack,
    pkey::{PKey, Private},
    rsa::Rsa,
};
use shared::custom_csr::KeyType;
use zeroize::Zeroizing;

use super::{KeyGenerator, KeygenError, aws_lc::AwsLc, private_key::PrivateKey};

const RSA_BITS: u32 = 2048;

/// Makes RSA keys by OpenSSL, and the others by aws-lc-rs.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenSslRsa;

impl KeyGenerator for OpenSslRsa {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        match key_type {
            KeyType::Rsa2048 => {
                let private_key_info = Zeroizing::new(rsa()?.private_key_to_pkcs8()?);
                PrivateKey::parse(key_type, &private_key_info).map_err(|_| KeygenError)
            }
            KeyType::P256v1 => AwsLc.generate(key_type),
        }
    }
}

/// Makes an RSA key. OpenSSL wipes it when it is dropped.
pub(crate) fn rsa() -> Result<PKey<Private>, KeygenError> {
    Ok(PKey::from_rsa(Rsa::generate(RSA_BITS)?)?)
}

impl From<ErrorStack> for KeygenError {
    fn from(_: ErrorStack) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::certification_request;

    #[test]
    fn the_vendored_openssl_is_3_6_or_newer() {
        assert!(openssl::version::number() >= 0x3060_0000, "{}", openssl::version::version());
    }

    #[test]
    fn keys_of_both_types_sign_certification_requests_and_no_two_are_equal() {
        for key_type in KeyType::ALL {
            let request = shared::testing::request(*key_type);
            let keys = [OpenSslRsa.generate(*key_type).unwrap(), OpenSslRsa.generate(*key_type).unwrap()];
            let [one, two] = keys.map(|key| certification_request(&request, &key).unwrap());
            assert_ne!(one.spki_sha256, two.spki_sha256);
        }
    }
}
