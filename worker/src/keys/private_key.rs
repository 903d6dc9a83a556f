//! A private key that signs. It is generated or parsed once, and not parsed again from its own encoding.

use aws_lc_rs::{
    digest,
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256},
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use shared::custom_csr::KeyType;
use zeroize::Zeroizing;

/// A private key info (RFC 5958) in DER, wiped when dropped.
pub type PrivateKeyInfo = Zeroizing<Vec<u8>>;

/// A private key could not be read or written. The error has no details, because they could be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the private key cannot be read")]
pub struct PrivateKeyError;

/// A private key. aws-lc wipes it when it is dropped.
pub enum PrivateKey {
    /// RSA-2048.
    Rsa(rsa::KeyPair),
    /// P-256.
    Ecdsa(EcdsaKeyPair),
}

impl PrivateKey {
    /// Parses and checks a private key info.
    ///
    /// # Errors
    ///
    /// [`PrivateKeyError`] if it is no valid key of this type.
    pub fn parse(key_type: KeyType, private_key_info: &[u8]) -> Result<Self, PrivateKeyError> {
        match key_type {
            KeyType::Rsa2048 => rsa::KeyPair::from_pkcs8(private_key_info).map(Self::Rsa).map_err(|_| PrivateKeyError),
            KeyType::P256v1 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private_key_info).map(Self::Ecdsa).map_err(|_| PrivateKeyError)
            }
        }
    }

    /// Encodes the key, to be sealed and stored.
    ///
    /// # Errors
    ///
    /// [`PrivateKeyError`] if the library fails.
    pub fn to_private_key_info(&self) -> Result<PrivateKeyInfo, PrivateKeyError> {
        match self {
            Self::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| PrivateKeyError)?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            }
            Self::Ecdsa(pair) => Ok(Zeroizing::new(pair.to_pkcs8v1().map_err(|_| PrivateKeyError)?.as_ref().to_vec())),
        }
    }

    /// SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        let mut spki_sha256 = [0; 32];
        spki_sha256.copy_from_slice(digest::digest(&digest::SHA256, &self.subject_public_key_info()).as_ref());
        spki_sha256
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Rsa(pair) => pair.public_key().as_ref(),
            Self::Ecdsa(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Rsa(_) => &PKCS_RSA_SHA256,
            Self::Ecdsa(_) => &PKCS_ECDSA_P256_SHA256,
        }
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.map(|()| signature).map_err(|_| rcgen::Error::RemoteKeyError)
            }
            Self::Ecdsa(pair) => {
                pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| rcgen::Error::RemoteKeyError)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyGenerator, aws_lc::AwsLc};

    #[test]
    fn a_key_is_the_same_after_it_was_written_and_read() {
        for key_type in KeyType::ALL {
            let made = AwsLc.generate(*key_type).unwrap();
            let info = made.to_private_key_info().unwrap();
            let read = PrivateKey::parse(*key_type, &info).unwrap();
            assert_eq!(read.spki_sha256(), made.spki_sha256());
            assert_eq!(*read.to_private_key_info().unwrap(), *info);
        }
    }

    #[test]
    fn a_key_of_another_type_or_a_damaged_one_is_refused() {
        let ecdsa = AwsLc.generate(KeyType::P256v1).unwrap().to_private_key_info().unwrap();
        assert!(PrivateKey::parse(KeyType::Rsa2048, &ecdsa).is_err());
        let rsa = AwsLc.generate(KeyType::Rsa2048).unwrap().to_private_key_info().unwrap();
        assert!(PrivateKey::parse(KeyType::P256v1, &rsa).is_err());
        assert!(PrivateKey::parse(KeyType::Rsa2048, &rsa[..rsa.len() - 1]).is_err());
    }
}
