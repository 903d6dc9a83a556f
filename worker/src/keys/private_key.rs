//! A private key that signs. It is generated or parsed once, and not parsed again from its own encoding.

use aws_lc_rs::{
    digest,
    encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, ED25519,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, ML_DSA_44, ML_DSA_44_SIGNING, ParsedPublicKey, PqdsaKeyPair,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    },
};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_ML_DSA_44, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
    SigningKey,
};
use shared::custom_csr::KeyType;
use zeroize::Zeroizing;

/// A private key info (RFC 5958) in DER, wiped when dropped.
pub type PrivateKeyInfo = Zeroizing<Vec<u8>>;

/// A private key could not be read or written. The error has no details, because they could be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the private key cannot be read")]
pub struct PrivateKeyError;

/// A private key. aws-lc wipes it when it is dropped.
pub struct PrivateKey {
    key_type: KeyType,
    pair: Pair,
}

enum Pair {
    Rsa(rsa::KeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    MlDsa(PqdsaKeyPair),
}

/// How aws-lc knows a key type.
enum Kind {
    Rsa(KeySize),
    Ecdsa(&'static EcdsaSigningAlgorithm),
    Ed25519,
    MlDsa44,
}

const fn kind(key_type: KeyType) -> Kind {
    match key_type {
        KeyType::Rsa2048 => Kind::Rsa(KeySize::Rsa2048),
        KeyType::Rsa3072 => Kind::Rsa(KeySize::Rsa3072),
        KeyType::Rsa4096 => Kind::Rsa(KeySize::Rsa4096),
        KeyType::P256v1 => Kind::Ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyType::P384 => Kind::Ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyType::Ed25519 => Kind::Ed25519,
        KeyType::MlDsa44 => Kind::MlDsa44,
    }
}

impl PrivateKey {
    /// Makes a key by aws-lc.
    pub(super) fn generate(key_type: KeyType) -> Option<Self> {
        let pair = match kind(key_type) {
            Kind::Rsa(size) => rsa::KeyPair::generate(size).map(Pair::Rsa),
            Kind::Ecdsa(algorithm) => EcdsaKeyPair::generate(algorithm).map(Pair::Ecdsa),
            Kind::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519),
            Kind::MlDsa44 => PqdsaKeyPair::generate(&ML_DSA_44_SIGNING).map(Pair::MlDsa),
        };
        Some(Self { key_type, pair: pair.ok()? })
    }

    /// Parses and checks a private key info.
    ///
    /// # Errors
    ///
    /// [`PrivateKeyError`] if it is no valid key of this type.
    pub fn parse(key_type: KeyType, private_key_info: &[u8]) -> Result<Self, PrivateKeyError> {
        let pair = match kind(key_type) {
            Kind::Rsa(size) => {
                rsa::KeyPair::from_pkcs8(private_key_info).ok().filter(|pair| pair.public_modulus_len() == size.len()).map(Pair::Rsa)
            }
            Kind::Ecdsa(algorithm) => EcdsaKeyPair::from_pkcs8(algorithm, private_key_info).ok().map(Pair::Ecdsa),
            Kind::Ed25519 => Ed25519KeyPair::from_pkcs8(private_key_info).ok().map(Pair::Ed25519),
            Kind::MlDsa44 => PqdsaKeyPair::from_pkcs8(&ML_DSA_44_SIGNING, private_key_info).ok().map(Pair::MlDsa),
        };
        Ok(Self { key_type, pair: pair.ok_or(PrivateKeyError)? })
    }

    /// Its type.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Encodes the key, to be sealed and stored.
    ///
    /// # Errors
    ///
    /// [`PrivateKeyError`] if the library fails.
    pub fn to_private_key_info(&self) -> Result<PrivateKeyInfo, PrivateKeyError> {
        let written = |der: Pkcs8V1Der<'_>| Zeroizing::new(der.as_ref().to_vec());
        match &self.pair {
            Pair::Rsa(pair) => pair.as_der().map(written),
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map(|document| Zeroizing::new(document.as_ref().to_vec())),
            Pair::Ed25519(pair) => pair.as_der().map(written),
            // The seed (RFC 9881, 6).
            Pair::MlDsa(pair) => pair.private_key().as_der().map(written),
        }
        .map_err(|_| PrivateKeyError)
    }

    /// SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        let mut spki_sha256 = [0; 32];
        spki_sha256.copy_from_slice(digest::digest(&digest::SHA256, &self.subject_public_key_info()).as_ref());
        spki_sha256
    }

    /// The public key: an `RSAPublicKey` (RFC 8017), a point (SEC 1), 32 octets (RFC 8032) or 1312 (FIPS 204).
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::MlDsa(pair) => pair.public_key().as_ref(),
        }
    }

    /// The public key, ready to verify what this key signs, or `None` if the library refuses it.
    pub(super) fn parsed_public_key(&self) -> Option<ParsedPublicKey> {
        let key = self.public_key();
        match kind(self.key_type) {
            Kind::Rsa(_) => ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key),
            Kind::Ecdsa(_) if self.key_type == KeyType::P384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, key),
            Kind::Ecdsa(_) => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key),
            Kind::Ed25519 => ParsedPublicKey::new(&ED25519, key),
            Kind::MlDsa44 => ParsedPublicKey::new(&ML_DSA_44, key),
        }
        .ok()
    }

    /// The number that is the private key, on a NIST curve. It is wiped when dropped.
    pub(super) fn ec_scalar(&self) -> Option<EcPrivateKeyBin<'static>> {
        match &self.pair {
            Pair::Ecdsa(pair) => pair.private_key().as_be_bytes().ok(),
            Pair::Rsa(_) | Pair::Ed25519(_) | Pair::MlDsa(_) => None,
        }
    }

    /// Signs, or returns `None` if the library fails. ECDSA signatures are in DER.
    pub(super) fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Pair::Ecdsa(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
            Pair::MlDsa(pair) => {
                let mut signature = vec![0; ML_DSA_44_SIGNING.signature_len()];
                pair.sign(message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.public_key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.key_type {
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => &PKCS_RSA_SHA256,
            KeyType::P256v1 => &PKCS_ECDSA_P256_SHA256,
            KeyType::P384 => &PKCS_ECDSA_P384_SHA384,
            KeyType::Ed25519 => &PKCS_ED25519,
            KeyType::MlDsa44 => &PKCS_ML_DSA_44,
        }
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signature(message).ok_or(rcgen::Error::RemoteKeyError)
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
        assert!(PrivateKey::parse(KeyType::Rsa3072, &rsa).is_err());
        assert!(PrivateKey::parse(KeyType::P384, &ecdsa).is_err());
        assert!(PrivateKey::parse(KeyType::Ed25519, &ecdsa).is_err());
        assert!(PrivateKey::parse(KeyType::MlDsa44, &ecdsa).is_err());
        assert!(PrivateKey::parse(KeyType::Rsa2048, &rsa[..rsa.len() - 1]).is_err());
    }
}
