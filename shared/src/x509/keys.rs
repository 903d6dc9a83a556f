//! Public keys in certificates: their identity, whatever their encoding, and their size.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use num_bigint::BigUint;
use x509_parser::{
    asn1_rs::Tag,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS, Oid, asn1_rs::oid,
    },
    prelude::FromDer,
    public_key::RSAPublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::der::{bit_string, integer, null, object_identifier, sequence};

/// id-RSAES-OAEP (RFC 4055, 4.1).
const OID_PKCS1_RSAES_OAEP: Oid<'static> = oid!(1.2.840.113549.1.1.7);
/// id-ecDH and id-ecMQV (RFC 5480, 2.1.2): keys that sign nothing.
const OIDS_EC_RESTRICTED: [Oid<'static>; 2] = [oid!(1.3.132.1.12), oid!(1.3.132.1.13)];

/// Leading octets of a point that is compressed, uncompressed, or both at once (SEC 1, 2.3.3).
const POINT_UNCOMPRESSED: u8 = 4;

/// A public key, whatever its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of the SubjectPublicKeyInfo of this key in the encoding that CSRs made here have.
    pub sha256: [u8; 32],
    /// How the key is encoded, where the profiles of X.509 forbid that (RFC 3279, RFC 5480).
    pub forbidden: Option<&'static str>,
}

impl Key {
    /// Which key this is.
    #[must_use]
    pub fn of(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        let (der, forbidden) = rsa(spki).or_else(|| ec(spki)).unwrap_or_else(|| (spki.raw.to_vec(), None));
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &der).as_ref());
        Self { sha256, forbidden }
    }
}

/// The modulus and the public exponent of an RSA key of any kind.
#[must_use]
pub fn rsa_numbers(spki: &SubjectPublicKeyInfo<'_>) -> Option<(BigUint, BigUint)> {
    let kinds = [OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS, OID_PKCS1_RSAES_OAEP];
    if !kinds.contains(&spki.algorithm.algorithm) {
        return None;
    }
    let (rest, key) = RSAPublicKey::from_der(&spki.subject_public_key.data).ok()?;
    rest.is_empty().then(|| (BigUint::from_bytes_be(key.modulus), BigUint::from_bytes_be(key.exponent)))
}

/// The RSA key in its usual encoding. The NULL may be missing: RFC 4055 allows that in signatures, and some CAs do it in keys.
fn rsa(spki: &SubjectPublicKeyInfo<'_>) -> Option<(Vec<u8>, Option<&'static str>)> {
    let (modulus, exponent) = rsa_numbers(spki)?;
    let algorithm = &spki.algorithm;
    let has_parameters = algorithm.parameters.as_ref().is_some_and(|parameters| parameters.tag() != Tag::Null);
    let forbidden = if algorithm.algorithm == OID_PKCS1_RSASSAPSS {
        Some("as one for RSASSA-PSS alone")
    } else if algorithm.algorithm == OID_PKCS1_RSAES_OAEP {
        Some("as one for encryption alone")
    } else {
        has_parameters.then_some("with parameters that RSA keys do not have")
    };
    let usual = sequence(&[object_identifier(&OID_PKCS1_RSAENCRYPTION), null()]);
    Some((sequence(&[usual, bit_string(&sequence(&[integer(&modulus), integer(&exponent)]))]), forbidden))
}

/// The key on P-256 or P-384 in its usual encoding: a named curve and an uncompressed point. RFC 5480 allows a compressed point too.
fn ec(spki: &SubjectPublicKeyInfo<'_>) -> Option<(Vec<u8>, Option<&'static str>)> {
    let algorithm = &spki.algorithm;
    let restricted = OIDS_EC_RESTRICTED.contains(&algorithm.algorithm).then_some("as one for key agreement alone");
    if restricted.is_none() && algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return None;
    }
    let key = &*spki.subject_public_key.data;
    let (curve, unnamed) = match &algorithm.parameters {
        Some(parameters) if parameters.tag() == Tag::Oid => {
            let name = parameters.as_oid().ok()?;
            (CURVES.iter().find(|curve| curve.name == name)?, None)
        }
        Some(parameters) if parameters.tag() == Tag::Sequence => {
            (Curve::of_point(key)?, Some("with explicit curve parameters instead of the curve's name"))
        }
        _ => (Curve::of_point(key)?, Some("without the name of its curve")),
    };
    let (point, hybrid) = curve.uncompressed(key)?;
    let usual = sequence(&[object_identifier(&OID_KEY_TYPE_EC_PUBLIC_KEY), object_identifier(&curve.name)]);
    Some((sequence(&[usual, bit_string(&point)]), restricted.or(unnamed).or(hybrid)))
}

/// A curve y² = x³ - 3x + b over a prime field.
struct Curve {
    name: Oid<'static>,
    /// Octets of a coordinate.
    octets: usize,
    prime: BigUint,
    b: BigUint,
}

/// P-256 and P-384 (SEC 2, 2.4.2 and 2.5.1). Both primes are 3 modulo 4.
static CURVES: LazyLock<[Curve; 2]> = LazyLock::new(|| {
    let number = |digits: &[u8]| BigUint::parse_bytes(digits, 16).unwrap_or_default();
    [
        Curve {
            name: OID_EC_P256,
            octets: 32,
            prime: number(b"ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
            b: number(b"5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"),
        },
        Curve {
            name: OID_NIST_EC_P384,
            octets: 48,
            prime: number(b"fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff"),
            b: number(b"b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef"),
        },
    ]
});

impl Curve {
    /// The curve that a point of this length is on, whatever its form.
    fn of_point(point: &[u8]) -> Option<&'static Self> {
        let coordinates = point.len().checked_sub(1)?;
        CURVES.iter().find(|curve| coordinates == curve.octets || coordinates == 2 * curve.octets)
    }

    /// A point without compression, with what is wrong with its form.
    fn uncompressed(&self, point: &[u8]) -> Option<(Vec<u8>, Option<&'static str>)> {
        match point {
            [POINT_UNCOMPRESSED, xy @ ..] if xy.len() == 2 * self.octets => Some((point.to_vec(), None)),
            [6 | 7, xy @ ..] if xy.len() == 2 * self.octets => {
                Some(([&[POINT_UNCOMPRESSED], xy].concat(), Some("with its point in the hybrid form")))
            }
            [form @ (2 | 3), x @ ..] if x.len() == self.octets => Some((self.decompressed(*form & 1 == 1, x)?, None)),
            _ => None,
        }
    }

    /// The point with this x and a y that is odd or not (SEC 1, 2.3.4).
    fn decompressed(&self, is_odd: bool, x: &[u8]) -> Option<Vec<u8>> {
        let (prime, b) = (&self.prime, &self.b);
        let number = BigUint::from_bytes_be(x);
        if number >= *prime {
            return None;
        }
        let square = (number.pow(3) + b + (prime - 3_u8) * &number) % prime;
        let root = square.modpow(&((prime + 1_u8) >> 2), prime);
        if &root * &root % prime != square {
            return None;
        }
        let y = if root.bit(0) == is_odd { root } else { prime - root };
        let y = y.to_bytes_be();
        let padding = vec![0; self.octets.checked_sub(y.len())?];
        Some([&[POINT_UNCOMPRESSED], x, &padding, &y].concat())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    fn key(der: &[u8]) -> Key {
        Key::of(&SubjectPublicKeyInfo::from_der(der).unwrap().1)
    }

    #[test]
    fn a_compressed_point_is_the_same_key_and_a_hybrid_one_is_forbidden() {
        let curves = [(&ECDSA_P256_SHA256_ASN1_SIGNING, OID_EC_P256, 32), (&ECDSA_P384_SHA384_ASN1_SIGNING, OID_NIST_EC_P384, 48)];
        for (algorithm, name, octets) in curves.iter().cycle().take(16) {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let point = pair.public_key().as_ref().to_vec();
            let spki = |curve: Vec<u8>, point: &[u8]| {
                sequence(&[sequence(&[object_identifier(&OID_KEY_TYPE_EC_PUBLIC_KEY), curve]), bit_string(point)])
            };
            let named = || object_identifier(name);
            let usual = key(&spki(named(), &point));
            assert_eq!(usual.forbidden, None);
            let odd = point[2 * octets] & 1;
            assert_eq!(key(&spki(named(), &[&[2 + odd], &point[1..=*octets]].concat())), usual);
            assert_ne!(key(&spki(named(), &[&[3 - odd], &point[1..=*octets]].concat())), usual);
            for (curve, point) in [
                (named(), [&[6 + odd], &point[1..]].concat()),
                (null(), point.clone()),
                (sequence(&[integer(&BigUint::from(1_u8))]), point.clone()),
            ] {
                let other = key(&spki(curve, &point));
                assert_eq!(other.sha256, usual.sha256);
                assert!(other.forbidden.is_some());
            }
        }
    }

    #[test]
    fn an_rsa_key_is_the_same_without_null_and_forbidden_for_pss_alone() {
        let numbers = sequence(&[integer(&(BigUint::from(1_u8) << 2047_u32)), integer(&BigUint::from(65537_u32))]);
        let spki = |algorithm: &[Vec<u8>]| key(&sequence(&[sequence(algorithm), bit_string(&numbers)]));
        let usual = spki(&[object_identifier(&OID_PKCS1_RSAENCRYPTION), null()]);
        assert_eq!(usual.forbidden, None);
        assert_eq!(spki(&[object_identifier(&OID_PKCS1_RSAENCRYPTION)]), usual);
        for oid in [OID_PKCS1_RSASSAPSS, OID_PKCS1_RSAES_OAEP] {
            let other = spki(&[object_identifier(&oid)]);
            assert_eq!(other.sha256, usual.sha256);
            assert!(other.forbidden.is_some());
        }
    }
}
