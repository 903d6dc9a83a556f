//! What people call the algorithms and curves of certificates.

use x509_parser::oid_registry::{
    OID_HASH_SHA1, OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, Oid, OidRegistry, asn1_rs::oid,
};

use super::text;

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

/// The usual name of an algorithm or a curve, or its number if it has none.
#[must_use]
pub fn name(oid: &Oid<'_>) -> String {
    if let Some((_, name)) = NAMES.iter().find(|(known, _)| known == oid) {
        return (*name).to_owned();
    }
    let registry = OidRegistry::default().with_crypto();
    registry.get(oid).map_or_else(|| text::dotted(oid), |entry| entry.sn().to_owned())
}
