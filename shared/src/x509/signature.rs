//! Signatures on certificates: which algorithms are supported, and whether one was made by a key.

use aws_lc_rs::{
    digest,
    signature::{self, UnparsedPublicKey, VerificationAlgorithm},
};
use num_bigint::BigUint;
use x509_parser::{
    asn1_rs::Tag,
    certificate::X509Certificate,
    oid_registry::{
        OID_EC_P256, OID_HASH_SHA1, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_NIST_HASH_SHA256,
        OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519, Oid,
        OidRegistry, asn1_rs::oid,
    },
    signature_algorithm::RsaSsaPssParams,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

use super::keys::rsa_numbers;

/// The fewest bits of an RSA modulus.
pub const RSA_MIN_BITS: u64 = 2048;
/// The most bits of an RSA modulus: what verifying costs grows with their square.
const RSA_MAX_BITS: u64 = 8192;
/// The most bits of a public exponent, for the same reason.
const RSA_MAX_EXPONENT_BITS: u64 = 33;

/// id-mgf1 (RFC 4055, 2.2).
const OID_MGF1: Oid<'static> = oid!(1.2.840.113549.1.1.8);

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

/// The parameters of RSASSA-PSS (RFC 4055, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pss {
    /// What the message is hashed with.
    hash: Hash,
    /// What the mask is made with.
    mask: Hash,
    /// Octets of salt.
    salt: usize,
}

/// A supported signature algorithm (RFC 5758, RFC 4055, RFC 8410).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5.
    Rsa(Hash),
    /// RSASSA-PSS.
    RsaPss(Pss),
    /// ECDSA.
    Ecdsa(Hash),
    /// Ed25519.
    Ed25519,
}

/// Whether a key made a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Signed,
    /// It did not.
    NotSigned,
    /// Nobody can say here; this is what is not supported.
    Unsupported(String),
    /// It is an RSA key too small to be trusted, and was not asked.
    TooSmall,
}

impl SignatureAlgorithm {
    /// The algorithm that `certificate` is signed with.
    ///
    /// # Errors
    ///
    /// The algorithm's name and parameters, where it is not supported.
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
        if identifier.algorithm == OID_PKCS1_RSASSAPSS {
            return Pss::of(identifier).map(Self::RsaPss);
        }
        let found = plain.into_iter().find(|(oid, _)| *oid == identifier.algorithm).map(|(_, algorithm)| algorithm);
        found.ok_or_else(|| name(&identifier.algorithm))
    }

    /// The name that is shown, such as `SHA256WithRSA` or `ECDSAWithSHA256`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Rsa(hash) => format!("{}WithRSA", hash.name()),
            Self::RsaPss(pss) => format!("{}WithRSAPSS", pss.hash.name()),
            Self::Ecdsa(hash) => format!("ECDSAWith{}", hash.name()),
            Self::Ed25519 => "Ed25519".to_owned(),
        }
    }

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

impl Hash {
    const ALL: [(Oid<'static>, Self); 3] =
        [(OID_NIST_HASH_SHA256, Self::Sha256), (OID_NIST_HASH_SHA384, Self::Sha384), (OID_NIST_HASH_SHA512, Self::Sha512)];

    fn of(oid: &Oid<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| known == oid).map(|(_, hash)| hash)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn octets(self) -> usize {
        self.algorithm().output_len()
    }
}

impl Pss {
    /// The parameters, whose defaults have SHA-1 in them, which is not supported.
    fn of(identifier: &AlgorithmIdentifier<'_>) -> Result<Self, String> {
        let absent = || "RSASSA-PSS without parameters, which means SHA-1".to_owned();
        let parameters = identifier.parameters.as_ref().ok_or_else(absent)?;
        let unreadable = || "RSASSA-PSS with parameters that cannot be read".to_owned();
        let parameters = RsaSsaPssParams::try_from(parameters).map_err(|_| unreadable())?;
        let mask = parameters.mask_gen_algorithm().map_err(|_| unreadable())?;
        let (hash_oid, salt, trailer) = (parameters.hash_algorithm_oid(), parameters.salt_length(), parameters.trailer_field());
        let words = || {
            let mask_name = if mask.mgf == OID_MGF1 { "MGF1".to_owned() } else { mask.mgf.to_id_string() };
            let (hash, mask_hash) = (name(hash_oid), name(&mask.hash));
            let trailer = if trailer == 1 { String::new() } else { format!(" and trailer field {trailer}") };
            format!("RSASSA-PSS with {hash}, {mask_name} with {mask_hash}, a salt of {salt} octets{trailer}")
        };
        let found = Hash::of(hash_oid).zip(Hash::of(&mask.hash)).zip(usize::try_from(salt).ok());
        let ((hash, mask_hash), salt) = found.filter(|_| mask.mgf == OID_MGF1 && trailer == 1).ok_or_else(words)?;
        Ok(Self { hash, mask: mask_hash, salt })
    }

    /// aws-lc-rs verifies with a salt and a mask that fit the hash.
    fn usual(self) -> Option<&'static dyn VerificationAlgorithm> {
        if self.mask != self.hash || self.salt != self.hash.octets() {
            return None;
        }
        Some(match self.hash {
            Hash::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Hash::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Hash::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
        })
    }

    /// RSASSA-PSS-VERIFY (RFC 8017, 8.1.2) for salts and masks that aws-lc-rs has no algorithm for. Everything in it is public, so nothing
    /// has to take the same time for each key.
    fn verify(self, message: &[u8], signed: &[u8], (modulus, exponent): &(BigUint, BigUint)) -> bool {
        let octets = |bits: u64| usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX);
        let signature = BigUint::from_bytes_be(signed);
        if signed.len() != octets(modulus.bits()) || signature >= *modulus {
            return false;
        }
        let encoded_bits = modulus.bits() - 1;
        let number = signature.modpow(exponent, modulus).to_bytes_be();
        let Some(missing) = octets(encoded_bits).checked_sub(number.len()) else { return false };
        let encoded = [vec![0; missing], number].concat();
        self.verify_encoded(message, &encoded, u32::try_from(encoded_bits % 8).unwrap_or_default())
    }

    /// EMSA-PSS-VERIFY (RFC 8017, 9.1.2). The first octet has `first_bits` bits, or all eight where that is 0.
    fn verify_encoded(self, message: &[u8], encoded: &[u8], first_bits: u32) -> bool {
        let hash_octets = self.hash.octets();
        let Some((masked, [hashed @ .., 0xbc])) = encoded.len().checked_sub(hash_octets + 1).map(|at| encoded.split_at(at)) else {
            return false;
        };
        let Some(padding) = masked.len().checked_sub(self.salt + 1) else { return false };
        let mut block: Vec<u8> = masked.iter().zip(self.mask(hashed, masked.len())).map(|(masked, mask)| masked ^ mask).collect();
        let unused = if first_bits == 0 { 0 } else { !(0xff_u8 >> (8 - first_bits)) };
        if masked[0] & unused != 0 {
            return false;
        }
        block[0] &= !unused;
        let (zeros, salt) = (&block[..padding], &block[padding + 1..]);
        if zeros.iter().any(|octet| *octet != 0) || block[padding] != 1 {
            return false;
        }
        let algorithm = self.hash.algorithm();
        let digest_of_message = digest::digest(algorithm, message);
        let expected = digest::digest(algorithm, &[&[0; 8], digest_of_message.as_ref(), salt].concat());
        expected.as_ref() == hashed
    }

    /// MGF1 (RFC 8017, B.2.1).
    fn mask(self, seed: &[u8], octets: usize) -> Vec<u8> {
        let block = |counter: u32| digest::digest(self.mask.algorithm(), &[seed, &counter.to_be_bytes()].concat()).as_ref().to_vec();
        (0..).flat_map(block).take(octets).collect()
    }
}

/// The numbers of an RSA key that may be asked.
fn rsa(key: &SubjectPublicKeyInfo<'_>) -> Result<(BigUint, BigUint), Verdict> {
    let (modulus, exponent) = rsa_numbers(key).ok_or(Verdict::NotSigned)?;
    match modulus.bits() {
        0..RSA_MIN_BITS => Err(Verdict::TooSmall),
        RSA_MIN_BITS..=RSA_MAX_BITS if exponent.bits() <= RSA_MAX_EXPONENT_BITS && modulus.bit(0) => Ok((modulus, exponent)),
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

/// What people call an algorithm or a curve that the parser's table has no name for.
const NAMES: [(Oid<'static>, &str); 27] = [
    (OID_HASH_SHA1, "SHA-1"),
    (OID_NIST_HASH_SHA256, "SHA-256"),
    (OID_NIST_HASH_SHA384, "SHA-384"),
    (OID_NIST_HASH_SHA512, "SHA-512"),
    (oid!(2.16.840.1.101.3.4.2.4), "SHA-224"),
    (oid!(2.16.840.1.101.3.4.2.6), "SHA-512/256"),
    (oid!(1.2.840.113549.2.5), "MD5"),
    (oid!(1.3.101.113), "Ed448"),
    (oid!(2.16.840.1.101.3.4.3.17), "ML-DSA-44"),
    (oid!(2.16.840.1.101.3.4.3.18), "ML-DSA-65"),
    (oid!(2.16.840.1.101.3.4.3.19), "ML-DSA-87"),
    (oid!(1.2.840.10045.4.1), "ECDSA with SHA-1"),
    (oid!(1.2.840.10045.4.3.1), "ECDSA with SHA-224"),
    (oid!(2.16.840.1.101.3.4.3.10), "ECDSA with SHA3-256"),
    (oid!(1.2.840.113549.1.1.4), "RSA with MD5"),
    (oid!(1.2.840.113549.1.1.5), "RSA with SHA-1"),
    (oid!(1.3.14.3.2.29), "RSA with SHA-1"),
    (oid!(1.2.840.113549.1.1.14), "RSA with SHA-224"),
    (oid!(2.16.840.1.101.3.4.3.14), "RSA with SHA3-256"),
    (oid!(1.2.840.10040.4.3), "DSA with SHA-1"),
    (oid!(2.16.840.1.101.3.4.3.2), "DSA with SHA-256"),
    (oid!(1.2.156.10197.1.501), "SM2 with SM3"),
    (oid!(1.2.643.7.1.1.3.2), "GOST R 34.10-2012"),
    (oid!(1.3.132.0.10), "secp256k1"),
    (oid!(1.3.132.0.33), "P-224"),
    (oid!(1.3.36.3.3.2.8.1.1.7), "brainpoolP256r1"),
    (oid!(1.3.36.3.3.2.8.1.1.11), "brainpoolP384r1"),
];

/// What people call an algorithm or a curve; its number where they do not.
fn name(oid: &Oid<'_>) -> String {
    if let Some((_, name)) = NAMES.iter().find(|(known, _)| known == oid) {
        return (*name).to_owned();
    }
    let registry = OidRegistry::default().with_crypto();
    registry.get(oid).map_or_else(|| oid.to_id_string(), |entry| entry.sn().to_owned())
}

/// Whether `certificate` was signed by the holder of `key`.
#[must_use]
pub fn is_signed_by(certificate: &X509Certificate<'_>, key: &SubjectPublicKeyInfo<'_>) -> Verdict {
    SignatureAlgorithm::of(certificate).map_or_else(Verdict::Unsupported, |algorithm| {
        algorithm.verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data, key)
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        rsa::KeySize,
        signature::{KeyPair, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair},
    };
    use x509_parser::{prelude::FromDer, public_key::RSAPublicKey};

    use super::*;

    #[test]
    fn the_own_verification_of_pss_agrees_with_the_librarys_on_the_salt_that_it_knows() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let (_, key) = RSAPublicKey::from_der(pair.public_key().as_ref()).unwrap();
        let numbers = (BigUint::from_bytes_be(key.modulus), BigUint::from_bytes_be(key.exponent));
        for (hash, encoding) in [(Hash::Sha256, &RSA_PSS_SHA256), (Hash::Sha384, &RSA_PSS_SHA384), (Hash::Sha512, &RSA_PSS_SHA512)] {
            let pss = Pss { hash, mask: hash, salt: hash.octets() };
            let mut signed = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), b"a message", &mut signed).unwrap();
            assert!(pss.verify(b"a message", &signed, &numbers));
            assert!(!pss.verify(b"another", &signed, &numbers));
            for other in [Pss { salt: pss.salt + 1, ..pss }, Pss { salt: 0, ..pss }, Pss { salt: 5000, ..pss }] {
                assert!(!other.verify(b"a message", &signed, &numbers));
            }
            for at in [0, 100, signed.len() - 1] {
                let mut changed = signed.clone();
                changed[at] ^= 1;
                assert!(!pss.verify(b"a message", &changed, &numbers));
            }
            assert!(!pss.verify(b"a message", &signed[1..], &numbers));
            assert!(!pss.verify(b"a message", &[], &numbers));
        }
    }

    #[test]
    fn an_encoded_message_of_any_length_is_judged() {
        for octets in 0..80 {
            for hash in [Hash::Sha256, Hash::Sha512] {
                for salt in [0, 1, 32] {
                    let mut encoded = vec![0x55; octets];
                    if let Some(last) = encoded.last_mut() {
                        *last = 0xbc;
                    }
                    assert!(!Pss { hash, mask: hash, salt }.verify_encoded(b"", &encoded, 7));
                }
            }
        }
    }
}
