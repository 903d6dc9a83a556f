//! Whether a key made a certificate's signature.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use num_bigint::BigUint;
use x509_parser::{
    asn1_rs::Tag,
    certificate::X509Certificate,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSASSAPSS, OID_SIG_ED25519},
    x509::SubjectPublicKeyInfo,
};

use super::{
    algorithm::{Hash, Pss, SignatureAlgorithm},
    algorithm_name::name,
    keys::rsa_numbers,
};

/// The fewest bits of an RSA modulus.
pub const RSA_MIN_BITS: u64 = 2048;
/// The most bits of an RSA modulus: what verifying costs grows with their square.
const RSA_MAX_BITS: u64 = 8192;
/// The most bits of a public exponent, for the same reason.
const RSA_MAX_EXPONENT_BITS: u64 = 33;

/// Whether a key made a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Signed,
    /// It did not.
    NotSigned,
    /// Not known, because this is not supported.
    Unsupported(String),
    /// Not checked, because it is an RSA key too small to be trusted.
    TooSmall,
}

/// Whether `certificate` was signed by the holder of `key`.
#[must_use]
pub fn is_signed_by(certificate: &X509Certificate<'_>, key: &SubjectPublicKeyInfo<'_>) -> Verdict {
    SignatureAlgorithm::of(certificate).map_or_else(Verdict::Unsupported, |algorithm| {
        algorithm.verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data, key)
    })
}

impl SignatureAlgorithm {
    fn verify(self, message: &[u8], signed: &[u8], key: &SubjectPublicKeyInfo<'_>) -> Verdict {
        let verification: &'static dyn VerificationAlgorithm = match self {
            Self::Rsa(hash) => match rsa(key) {
                Ok(_) if key.algorithm.algorithm == OID_PKCS1_RSASSAPSS => {
                    return Verdict::Unsupported("RSA PKCS #1 v1.5 by a key that is for RSASSA-PSS alone".to_owned());
                }
                Ok(_) => match hash {
                    Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                },
                Err(verdict) => return verdict,
            },
            Self::RsaPss(pss) => match (rsa(key), pss.usual()) {
                (Err(verdict), _) => return verdict,
                (Ok(_), _) if !allows(key, pss) => {
                    return Verdict::Unsupported("RSASSA-PSS by a key that is for other parameters of it".to_owned());
                }
                (Ok(_), Some(verification)) => verification,
                (Ok(numbers), None) => {
                    return if pss.verify(message, signed, &numbers) { Verdict::Signed } else { Verdict::NotSigned };
                }
            },
            Self::Ecdsa(hash) => match ecdsa(hash, key) {
                Ok(verification) => verification,
                Err(verdict) => return verdict,
            },
            Self::Ed25519 if key.algorithm.algorithm == OID_SIG_ED25519 => &signature::ED25519,
            Self::Ed25519 => return Verdict::NotSigned,
        };
        let public_key = UnparsedPublicKey::new(verification, &key.subject_public_key.data);
        if public_key.verify(message, signed).is_ok() { Verdict::Signed } else { Verdict::NotSigned }
    }
}

/// Whether a key allows these parameters. One for RSASSA-PSS alone may say which: the same functions, and no shorter salt (RFC 4055, 3.3).
fn allows(key: &SubjectPublicKeyInfo<'_>, pss: Pss) -> bool {
    let algorithm = &key.algorithm;
    if algorithm.algorithm != OID_PKCS1_RSASSAPSS || algorithm.parameters.is_none() {
        return true;
    }
    Pss::of(algorithm).is_ok_and(|own| (own.hash, own.mask) == (pss.hash, pss.mask) && own.salt <= pss.salt)
}

/// The numbers of an RSA key of a supported size.
fn rsa(key: &SubjectPublicKeyInfo<'_>) -> Result<(BigUint, BigUint), Verdict> {
    let (modulus, exponent) = rsa_numbers(key).ok_or(Verdict::NotSigned)?;
    match modulus.bits() {
        0..RSA_MIN_BITS => Err(Verdict::TooSmall),
        // An even number is no product of two large primes: nobody signs with it.
        RSA_MIN_BITS..=RSA_MAX_BITS if !modulus.bit(0) => Err(Verdict::NotSigned),
        RSA_MIN_BITS..=RSA_MAX_BITS if exponent.bits() <= RSA_MAX_EXPONENT_BITS => Ok((modulus, exponent)),
        RSA_MIN_BITS..=RSA_MAX_BITS => {
            let bits = exponent.bits();
            Err(Verdict::Unsupported(format!("an RSA key with a public exponent of {bits} bits (at most {RSA_MAX_EXPONENT_BITS})")))
        }
        bits => Err(Verdict::Unsupported(format!("an RSA key of {bits} bits (at most {RSA_MAX_BITS})"))),
    }
}

/// How ECDSA signatures by a key are verified.
fn ecdsa(hash: Hash, key: &SubjectPublicKeyInfo<'_>) -> Result<&'static dyn VerificationAlgorithm, Verdict> {
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(Verdict::NotSigned);
    }
    let unsupported = |what: String| Err(Verdict::Unsupported(format!("ECDSA by a key {what}; P-256, P-384 and P-521 are supported")));
    let curve = match &key.algorithm.parameters {
        Some(parameters) if parameters.tag() == Tag::Oid => parameters.as_oid().map_err(|_| Verdict::NotSigned)?,
        Some(parameters) if parameters.tag() == Tag::Sequence => {
            return unsupported("with explicit curve parameters instead of a curve's name".to_owned());
        }
        _ => return unsupported("without the name of its curve".to_owned()),
    };
    if matches!(key.subject_public_key.data.first(), Some(6 | 7)) {
        return unsupported("with its point in the hybrid form (RFC 5480, 2.2)".to_owned());
    }
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
        _ => return unsupported(format!("on the curve {}", name(&curve))),
    };
    Ok(verification)
}
