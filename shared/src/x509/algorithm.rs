//! Which signature algorithms are supported, with which hash functions and parameters.

use aws_lc_rs::digest;
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{
        OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
        OID_SIG_ED25519, Oid, asn1_rs::oid,
    },
    signature_algorithm::RsaSsaPssParams,
    x509::AlgorithmIdentifier,
};

use super::{algorithm_name::name, text};

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
    pub hash: Hash,
    /// What the mask is made with.
    pub mask: Hash,
    /// Octets of salt.
    pub salt: usize,
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

impl SignatureAlgorithm {
    /// The algorithm that `certificate` is signed with.
    ///
    /// # Errors
    ///
    /// The algorithm's name and parameters if it is not supported.
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

    /// The function of the crypto library.
    #[must_use]
    pub fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// Octets of a digest.
    #[must_use]
    pub fn octets(self) -> usize {
        self.algorithm().output_len()
    }
}

impl Pss {
    /// The parameters, whose defaults have SHA-1 in them, which is not supported.
    ///
    /// # Errors
    ///
    /// The algorithm's name and parameters.
    pub fn of(identifier: &AlgorithmIdentifier<'_>) -> Result<Self, String> {
        let absent = || "RSASSA-PSS without parameters, which means SHA-1".to_owned();
        let parameters = identifier.parameters.as_ref().ok_or_else(absent)?;
        let unreadable = || "RSASSA-PSS with parameters that cannot be read".to_owned();
        let parameters = RsaSsaPssParams::try_from(parameters).map_err(|_| unreadable())?;
        let mask = parameters.mask_gen_algorithm().map_err(|_| unreadable())?;
        let (hash_oid, salt, trailer) = (parameters.hash_algorithm_oid(), parameters.salt_length(), parameters.trailer_field());
        let words = || {
            let mask_name = if mask.mgf == OID_MGF1 { "MGF1".to_owned() } else { text::dotted(&mask.mgf) };
            let (hash, mask_hash) = (name(hash_oid), name(&mask.hash));
            let trailer = if trailer == 1 { String::new() } else { format!(" and trailer field {trailer}") };
            format!("RSASSA-PSS with {hash}, {mask_name} with {mask_hash}, a salt of {salt} octets{trailer}")
        };
        let found = Hash::of(hash_oid).zip(Hash::of(&mask.hash)).zip(usize::try_from(salt).ok());
        let ((hash, mask_hash), salt) = found.filter(|_| mask.mgf == OID_MGF1 && trailer == 1).ok_or_else(words)?;
        Ok(Self { hash, mask: mask_hash, salt })
    }
}
