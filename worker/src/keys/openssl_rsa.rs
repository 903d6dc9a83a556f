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

/// Makes RSA keys by OpenSSL, and the others by aws-lc-rs.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenSslRsa;

impl KeyGenerator for OpenSslRsa {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        let Some(bits) = key_type.rsa_bits() else { return AwsLc.generate(key_type) };
        let private_key_info = Zeroizing::new(rsa(bits)?.private_key_to_pkcs8()?);
        PrivateKey::parse(key_type, &private_key_info).map_err(|_| KeygenError)
    }
}

/// Makes an RSA key of this size. OpenSSL wipes it when it is dropped.
pub(crate) fn rsa(bits: usize) -> Result<PKey<Private>, KeygenError> {
    let bits = u32::try_from(bits).map_err(|_| KeygenError)?;
    Ok(PKey::from_rsa(Rsa::generate(bits)?)?)
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
    fn keys_of_all_types_sign_certification_requests_and_no_two_are_equal() {
        for key_type in KeyType::ALL {
            let request = shared::testing::request(*key_type);
            let keys = [OpenSslRsa.generate(*key_type).unwrap(), OpenSslRsa.generate(*key_type).unwrap()];
            for key in &keys {
                certification_request(&request, key).unwrap();
            }
            assert_ne!(keys[0].spki_sha256(), keys[1].spki_sha256());
        }
    }
}
