//! Public keys from JWK sets and PEM. Refuses keys that the library would take although they then verify nothing.

use aws_lc_rs::{
    encoding::AsDer,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm,
    },
};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::Value;

use super::key::Key;

/// Members of a JWK that only a private key has (RFC 7518, 6.2.2 and 6.3.2).
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// The sizes of RSA moduli, in bits, that signatures are verified with.
const RSA_MIN_BITS: usize = 2048;
const RSA_MAX_BITS: usize = 8192;

/// The keys of a JWK set (RFC 7517), and why its others are ignored: they are for other purposes or of unknown kinds. At least one must be
/// left.
pub(super) fn jwks(bytes: &[u8]) -> Result<(Vec<Key>, Vec<String>), String> {
    let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("is not JSON: {error}"))?;
    let jwks = set.get("keys").and_then(Value::as_array).ok_or("is not a JWK set: it has no array `keys`")?;
    let (mut keys, mut refused) = (Vec::new(), Vec::new());
    for (index, jwk) in jwks.iter().enumerate() {
        match jwk_key(jwk) {
            Ok(key) => keys.push(key),
            Err(problem) => {
                refused.push(format!("keys/{index}: {problem}"));
            }
        }
    }
    if keys.is_empty() {
        refused.insert(0, "has no key that can verify tokens".to_owned());
        return Err(refused.join("; "));
    }
    Ok((keys, refused))
}

fn jwk_key(jwk: &Value) -> Result<Key, String> {
    if PRIVATE_MEMBERS.iter().any(|member| jwk.get(member).is_some()) && jwk.get("kty").is_none_or(|kty| kty != "oct") {
        return Err("it holds a private key: publish only its public members, and replace the key, which others may have read".to_owned());
    }
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    if operations.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
        return Err("its key_ops lack verify".to_owned());
    }
    // The library's own text could quote the key.
    let jwk: Jwk = serde_json::from_value(jwk.clone()).map_err(|_| "it is not a JWK")?;
    if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
        return Err("it is for encryption".to_owned());
    }
    let usual = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => Algorithm::ES384,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return Err("its kty or crv is not supported".to_owned()),
    };
    let algorithm = match jwk.common.key_algorithm {
        None => usual,
        Some(named) => Algorithm::try_from(named)
            .ok()
            // An RSA key fits every algorithm of its family, another one just that of its curve.
            .filter(|named| *named == usual || (usual == Algorithm::RS256 && named.family() == AlgorithmFamily::Rsa))
            .ok_or("its alg is not supported or does not fit its kty and crv")?,
    };
    let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "it is not base64url")?;
    Ok(Key { kid: jwk.common.key_id, algorithm, decoding: checked(algorithm, decoding)? })
}

/// The one public key of a PEM file. The algorithm follows from its type.
pub(super) fn public_key(pem: &[u8]) -> Result<(Algorithm, DecodingKey), String> {
    let text = std::str::from_utf8(pem).map_err(|_| "is not PEM")?;
    let blocks: Vec<&str> = text.lines().map(str::trim_end).filter(|line| line.starts_with("-----BEGIN ")).collect();
    if blocks.iter().any(|block| block.contains("PRIVATE KEY")) {
        return Err("holds a private key: give its public key".to_owned());
    }
    match blocks.as_slice() {
        ["-----BEGIN PUBLIC KEY-----" | "-----BEGIN RSA PUBLIC KEY-----"] => {}
        [certificate] if certificate.contains("CERTIFICATE") => return Err("holds a certificate: give its public key".to_owned()),
        [] => return Err("holds no PEM".to_owned()),
        _ => return Err("must hold one PEM block, a PUBLIC KEY".to_owned()),
    }
    // Each of these accepts the object identifiers of its own kind of key only.
    let (algorithm, key) = DecodingKey::from_rsa_pem(pem)
        .map(|key| (Algorithm::RS256, key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
        .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)))
        .map_err(|_| "is neither an RSA, nor a P-256, nor an Ed25519 public key")?;
    Ok((algorithm, checked(algorithm, key)?))
}

/// The key in the form that verification takes, if it can verify signatures of this algorithm at all.
fn checked(algorithm: Algorithm, key: DecodingKey) -> Result<DecodingKey, String> {
    let point = |verification: &'static dyn VerificationAlgorithm, problem: &str| match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) if ParsedPublicKey::new(verification, bytes).is_ok() => Ok(()),
        _ => Err(problem.to_owned()),
    };
    match algorithm {
        Algorithm::ES256 => point(&ECDSA_P256_SHA256_FIXED, "the EC key is not on P-256")?,
        Algorithm::ES384 => point(&ECDSA_P384_SHA384_FIXED, "the EC key is not on P-384")?,
        Algorithm::EdDSA => {
            point(&ED25519, "the key is not an Ed25519 key")?;
            if matches!(key.kind(), DecodingKeyKind::SecretOrDer(bytes) if has_small_order(bytes)) {
                return Err("the Ed25519 key is a point of small order, for which anyone can sign: use another key".to_owned());
            }
        }
        _ => return checked_rsa(&key),
    }
    Ok(key)
}

/// The encodings of the points of small order on Curve25519's Edwards form, without the sign bit (RFC 8032, 5.1.7 leaves them in).
const SMALL_ORDER: [[u8; 32]; 7] = {
    let (zero, mut one, mut minus_one, mut zero_again, mut one_again) = ([0; 32], [0; 32], [0xff; 32], [0xff; 32], [0xff; 32]);
    one[0] = 1;
    (minus_one[0], zero_again[0], one_again[0]) = (0xec, 0xed, 0xee);
    (minus_one[31], zero_again[31], one_again[31]) = (0x7f, 0x7f, 0x7f);
    [
        zero,
        one,
        minus_one,
        zero_again,
        one_again,
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3,
            0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c,
            0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ]
};

fn has_small_order(key: &[u8]) -> bool {
    // A key from PEM may come as a SubjectPublicKeyInfo, which ends with the point.
    let Some(mut point) = key.last_chunk::<32>().copied() else { return true };
    point[31] &= 0x7f;
    SMALL_ORDER.contains(&point)
}

fn checked_rsa(key: &DecodingKey) -> Result<DecodingKey, String> {
    let broken = || "the RSA key is broken".to_owned();
    let (n, e) = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => (n.clone(), e.clone()),
        DecodingKeyKind::SecretOrDer(der) => {
            let RsaPublicKeyComponents { n, e } = (&rsa::PublicKey::from_der(der).map_err(|_| broken())?).into();
            (n, e)
        }
    };
    // Some issuers write a leading zero octet, which RFC 7518, 6.3.1.1, only warns of; verification refuses it.
    let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if bits < RSA_MIN_BITS {
        return Err(format!("the RSA key has {bits} bits: at least {RSA_MIN_BITS} are needed"));
    }
    if bits > RSA_MAX_BITS {
        return Err(format!("the RSA key has {bits} bits: at most {RSA_MAX_BITS} are supported"));
    }
    let der = RsaPublicKeyComponents { n, e }.as_der().map_err(|_| broken())?;
    rsa::PublicKey::from_der(der.as_ref()).map_err(|_| broken())?;
    Ok(DecodingKey::from_rsa_raw_components(n, e))
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}
