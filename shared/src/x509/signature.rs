//! Signatures on certificates: which algorithms are supported, and whether one was made by a key.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{
        OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512,
        OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519, Oid, OidRegistry,
    },
    signature_algorithm::RsaSsaPssParams,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

/// A hash function that signatures may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A supported signature algorithm (RFC 5758, RFC 4055, RFC 8410).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5.
    Rsa(Hash),
    /// RSASSA-PSS.
    RsaPss(Hash),
    /// ECDSA.
    Ecdsa(Hash),
    /// Ed25519.
    Ed25519,
}

impl SignatureAlgorithm {
    /// The algorithm that `certificate` is signed with.
    ///
    /// # Errors
    ///
    /// The algorithm's name, where it is not supported.
    pub fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let identifier = &certificate.signature_algorithm;
        let plain = [
            (OID_PKCS1_SHA256WITHRSA, Self::Rsa(Hash::Sha256)),
            (OID_PKCS1_SHA384WITHRSA, Self::Rsa(Hash::Sha384)),
            (OID_PKCS1_SHA512WITHRSA, Self::Rsa(Hash::Sha512)),
            (OID_SIG_ECDSA_WITH_SHA256, Self::Ecdsa(Hash::Sha256)),
            (OID_SIG_ECDSA_WITH_SHA384, Self::Ecdsa(Hash::Sha384)),
            (OID_SIG_ECDSA_WITH_SHA512, Self::Ecdsa(Hash::Sha512)),
            (OID_SIG_ED25519, Self::Ed25519),
        ];
        let found = plain.into_iter().find(|(oid, _)| *oid == identifier.algorithm).map(|(_, algorithm)| algorithm);
        found.or_else(|| pss_hash(identifier).map(Self::RsaPss)).ok_or_else(|| name(&identifier.algorithm))
    }

    /// The name that is shown, such as `SHA256WithRSA` or `ECDSAWithSHA256`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Rsa(hash) => format!("{}WithRSA", hash.name()),
            Self::RsaPss(hash) => format!("{}WithRSAPSS", hash.name()),
            Self::Ecdsa(hash) => format!("ECDSAWith{}", hash.name()),
            Self::Ed25519 => "Ed25519".to_owned(),
        }
    }

    /// How signatures of this algorithm by this key are verified; none where the key is of another kind.
    fn verification(self, key: &AlgorithmIdentifier<'_>) -> Option<&'static dyn VerificationAlgorithm> {
        let verification: &'static dyn VerificationAlgorithm = match self {
            Self::Rsa(Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rsa(Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rsa(Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::RsaPss(Hash::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
            Self::RsaPss(Hash::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
            Self::RsaPss(Hash::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Ecdsa(hash) => return ecdsa(hash, key),
            Self::Ed25519 => &signature::ED25519,
        };
        Some(verification)
    }
}

impl Hash {
    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }
}

fn ecdsa(hash: Hash, key: &AlgorithmIdentifier<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let curve = key.parameters.as_ref()?.as_oid().ok()?;
    let verification: &'static dyn VerificationAlgorithm = match hash {
        Hash::Sha256 if curve == OID_EC_P256 => &signature::ECDSA_P256_SHA256_ASN1,
        Hash::Sha384 if curve == OID_EC_P256 => &signature::ECDSA_P256_SHA384_ASN1,
        Hash::Sha512 if curve == OID_EC_P256 => &signature::ECDSA_P256_SHA512_ASN1,
        Hash::Sha256 if curve == OID_NIST_EC_P384 => &signature::ECDSA_P384_SHA256_ASN1,
        Hash::Sha384 if curve == OID_NIST_EC_P384 => &signature::ECDSA_P384_SHA384_ASN1,
        Hash::Sha512 if curve == OID_NIST_EC_P384 => &signature::ECDSA_P384_SHA512_ASN1,
        Hash::Sha256 if curve == OID_NIST_EC_P521 => &signature::ECDSA_P521_SHA256_ASN1,
        Hash::Sha384 if curve == OID_NIST_EC_P521 => &signature::ECDSA_P521_SHA384_ASN1,
        Hash::Sha512 if curve == OID_NIST_EC_P521 => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    };
    Some(verification)
}

/// The hash of RSASSA-PSS (RFC 4055, 3.1), whose own default, SHA-1, is not supported.
fn pss_hash(identifier: &AlgorithmIdentifier<'_>) -> Option<Hash> {
    if identifier.algorithm != OID_PKCS1_RSASSAPSS {
        return None;
    }
    let parameters = RsaSsaPssParams::try_from(identifier.parameters.as_ref()?).ok()?;
    let hashes = [(OID_NIST_HASH_SHA256, Hash::Sha256), (OID_NIST_HASH_SHA384, Hash::Sha384), (OID_NIST_HASH_SHA512, Hash::Sha512)];
    hashes.into_iter().find(|(oid, _)| oid == parameters.hash_algorithm_oid()).map(|(_, hash)| hash)
}

/// What people call an algorithm; its number where they do not.
fn name(oid: &Oid<'_>) -> String {
    let registry = OidRegistry::default().with_crypto();
    registry.get(oid).map_or_else(|| oid.to_id_string(), |entry| entry.sn().to_owned())
}

/// Whether `certificate` was signed by the holder of `key`.
#[must_use]
pub fn is_signed_by(certificate: &X509Certificate<'_>, key: &SubjectPublicKeyInfo<'_>) -> bool {
    let Ok(algorithm) = SignatureAlgorithm::of(certificate) else { return false };
    let Some(verification) = algorithm.verification(&key.algorithm) else { return false };
    let public_key = UnparsedPublicKey::new(verification, &key.subject_public_key.data);
    public_key.verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data).is_ok()
}
