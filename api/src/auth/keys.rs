//! The keys that tokens are verified with. The algorithm comes from the key, never from the token.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// The shortest secret, in bytes: as long as the hash (RFC 7518, 3.2).
const SECRET_MIN_BYTES: usize = 32;
/// The DER of an RSA public key (RFC 8017, A.1.1) with 2048 bits is at least this long.
const RSA_2048_MIN_BYTES: usize = 262;
/// An uncompressed point on P-256.
const P256_POINT_BYTES: usize = 65;

/// A secret that is wiped when dropped and never shown.
#[derive(Clone)]
pub struct Secret(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where the keys are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A JWK set (RFC 7517).
    JwksFile(PathBuf),
    /// One public key, PEM.
    PublicKeyFile(PathBuf),
    /// A shared secret, raw bytes.
    SecretFile(PathBuf),
    /// The demo identity's secret.
    Demo(Secret),
}

/// Why the keys cannot be used: it names the setting and the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {path}: {problem}")]
pub struct KeyError {
    setting: &'static str,
    path: String,
    problem: String,
}

/// One key.
pub(super) struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Key {
    pub fn verifies(&self, signed: &str, signature: &str) -> bool {
        crypto::verify(signature, signed.as_bytes(), &self.decoding, self.algorithm).unwrap_or(false)
    }
}

/// The keys at one time.
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// With a single configured key, a token's `kid` says nothing.
    any_kid: bool,
}

impl KeySet {
    pub fn load(source: &KeySource) -> Result<Self, KeyError> {
        let (setting, path) = match source {
            KeySource::JwksFile(path) => ("--jwt-jwks-file", path),
            KeySource::PublicKeyFile(path) => ("--jwt-public-key-file", path),
            KeySource::SecretFile(path) => ("--jwt-secret-file", path),
            KeySource::Demo(secret) => return Ok(Self::single(Algorithm::HS256, DecodingKey::from_secret(&secret.0))),
        };
        let error = |problem: String| KeyError { setting, path: path.display().to_string(), problem };
        let keys = match source {
            KeySource::JwksFile(_) => read(path).and_then(|bytes| jwks(&bytes)),
            KeySource::PublicKeyFile(_) => read(path).and_then(|bytes| public_key(&bytes)),
            KeySource::SecretFile(_) | KeySource::Demo(_) => {
                secret_file(path).map(|secret| Self::single(Algorithm::HS256, DecodingKey::from_secret(&secret.0)))
            }
        };
        keys.map_err(error)
    }

    fn single(algorithm: Algorithm, decoding: DecodingKey) -> Self {
        Self { keys: vec![Key { kid: None, algorithm, decoding }], any_kid: true }
    }

    /// The key that a token's header asks for; none where the header is not acceptable.
    pub fn select(&self, header: &Map<String, Value>) -> Option<&Key> {
        if header.contains_key("crit") {
            return None;
        }
        let algorithm: Algorithm = header.get("alg")?.as_str()?.parse().ok()?;
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        match header.get("kid") {
            Some(kid) => {
                let kid = kid.as_str()?;
                fitting.find(|key| self.any_kid || key.kid.as_deref() == Some(kid))
            }
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| format!("cannot be read: {error}"))
}

/// Reads a shared secret: raw bytes, one newline at the end dropped.
pub(super) fn secret_file(path: &Path) -> Result<Secret, String> {
    let mut bytes = read(path)?;
    if bytes.ends_with(b"\n") {
        let newline = if bytes.ends_with(b"\r\n") { 2 } else { 1 };
        let length = bytes.len() - newline;
        bytes.truncate(length);
    }
    if bytes.len() < SECRET_MIN_BYTES {
        return Err(format!("the secret has {} bytes: at least {SECRET_MIN_BYTES} are needed", bytes.len()));
    }
    Ok(Secret(bytes))
}

/// Keys for other purposes and of kinds that are not known here are passed over; one usable key must be left.
fn jwks(bytes: &[u8]) -> Result<KeySet, String> {
    let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("is not JSON: {error}"))?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("is not a JWK set: it has no array `keys`")?;
    let keys: Vec<Key> = keys.iter().filter_map(|jwk| serde_json::from_value(jwk.clone()).ok()).filter_map(|jwk| jwk_key(&jwk)).collect();
    if keys.is_empty() {
        return Err("has no key that can verify tokens: RSA from 2048 bits, EC or Ed25519 keys for signatures are needed".to_owned());
    }
    Ok(KeySet { keys, any_kid: false })
}

fn jwk_key(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
        return None;
    }
    let usual = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => Algorithm::ES256,
            EllipticCurve::P384 => Algorithm::ES384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
        _ => return None,
    };
    let algorithm = match jwk.common.key_algorithm {
        Some(algorithm) => Algorithm::try_from(algorithm).ok().filter(|algorithm| algorithm.family() == usual.family())?,
        None => usual,
    };
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { kid: jwk.common.key_id.clone(), algorithm, decoding })
}

/// The algorithm follows from the type of the key.
fn public_key(pem: &[u8]) -> Result<KeySet, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "is not PEM")?;
    let blocks: Vec<&str> = text.lines().filter(|line| line.starts_with("-----BEGIN ")).collect();
    match blocks.as_slice() {
        ["-----BEGIN PUBLIC KEY-----" | "-----BEGIN RSA PUBLIC KEY-----"] => {}
        [private] if private.contains("PRIVATE KEY") => return Err("holds a private key: give its public key".to_owned()),
        [certificate] if certificate.contains("CERTIFICATE") => return Err("holds a certificate: give its public key".to_owned()),
        [] => return Err("holds no PEM".to_owned()),
        _ => return Err("must hold one PEM block, a PUBLIC KEY".to_owned()),
    }
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        let long = key.try_get_as_bytes().is_ok_and(|der| der.len() >= RSA_2048_MIN_BYTES);
        return if long { Ok(KeySet::single(Algorithm::RS256, key)) } else { Err("the RSA key has less than 2048 bits".to_owned()) };
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let p256 = key.try_get_as_bytes().is_ok_and(|point| point.len() == P256_POINT_BYTES);
        return if p256 { Ok(KeySet::single(Algorithm::ES256, key)) } else { Err("the EC key is not on P-256".to_owned()) };
    }
    let key = DecodingKey::from_ed_pem(pem).map_err(|_| "is neither an RSA, nor a P-256, nor an Ed25519 public key")?;
    Ok(KeySet::single(Algorithm::EdDSA, key))
}
