//! The keys that tokens are verified with. The algorithm comes from the key, never from the token.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::{Map, Value};
use shared::outbound::Url;
use zeroize::Zeroizing;

use super::{
    key::Key,
    public_keys::{jwks, public_key},
};
use crate::secret_file::{self, Content};

/// Some editors write it before the text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The shortest secret, in bytes: as long as the hash (RFC 7518, 3.2).
const SECRET_MIN_BYTES: usize = 32;

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
    /// A JWK set that an identity provider publishes.
    JwksUrl(Url),
    /// One public key, PEM.
    PublicKeyFile(PathBuf),
    /// A shared secret, raw bytes.
    SecretFile(PathBuf),
    /// The demo identity's secret.
    Demo(Secret),
}

impl KeySource {
    /// What is there now; nothing of a set that has to be fetched first.
    fn bytes(&self) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        match self {
            Self::JwksFile(path) | Self::PublicKeyFile(path) => read(path, Content::Public).map(Some),
            Self::JwksUrl(_) => Ok(None),
            Self::SecretFile(path) => shared_secret(path).map(|secret| Some(secret.0)),
            Self::Demo(secret) => Ok(Some(secret.0.clone())),
        }
    }

    pub(super) fn error(&self, problem: String) -> KeyError {
        let file = |path: &Path| path.display().to_string();
        let (setting, place) = match self {
            Self::JwksFile(path) => ("--jwt-jwks-file", file(path)),
            Self::JwksUrl(url) => ("--jwt-jwks-url", url.to_string()),
            Self::PublicKeyFile(path) => ("--jwt-public-key-file", file(path)),
            Self::SecretFile(path) => ("--jwt-secret-file", file(path)),
            Self::Demo(_) => ("--data-dir", "signing.key".to_owned()),
        };
        KeyError { setting, place, problem }
    }

    const fn is_set(&self) -> bool {
        matches!(self, Self::JwksFile(_) | Self::JwksUrl(_))
    }
}

/// Why the keys cannot be used: it names the setting, and the file or the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {place}: {problem}")]
pub struct KeyError {
    setting: &'static str,
    place: String,
    problem: String,
}

impl KeyError {
    /// What is wrong, without the place.
    pub(super) fn problem(&self) -> &str {
        &self.problem
    }
}

/// Why no key is for a token.
pub(super) enum Unfit {
    /// Its header is not acceptable.
    Header(&'static str),
    /// No key has its `kid`: a newer set might have one.
    UnknownKey,
    /// The keys were not fetched yet.
    NoKeysYet,
}

/// The keys at one time.
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// SHA-256 of what they were read from.
    sha256: Vec<u8>,
    /// With a single configured key, a token's `kid` says nothing.
    any_kid: bool,
}

impl KeySet {
    /// Reads the keys, and logs which of a JWK set are ignored. There are none yet where they have to be fetched.
    pub fn load(source: &KeySource) -> Result<Self, KeyError> {
        let parse = |bytes: Option<Zeroizing<Vec<u8>>>| bytes.map(|bytes| Self::parse(source, &bytes)).transpose();
        let set = source.bytes().and_then(parse).map_err(|problem| source.error(problem))?;
        Ok(set.unwrap_or_else(|| Self { keys: Vec::new(), sha256: Vec::new(), any_kid: false }))
    }

    /// Reads the keys again, or returns `None` if they are the same: the file is read far more often than it changes.
    pub fn load_if_changed(&self, source: &KeySource) -> Result<Option<Self>, KeyError> {
        let bytes = source.bytes().map_err(|problem| source.error(problem))?;
        bytes.map_or(Ok(None), |bytes| self.parse_if_changed(source, &bytes))
    }

    /// Takes keys that are at hand, or returns `None` if they are the same.
    pub fn parse_if_changed(&self, source: &KeySource, bytes: &[u8]) -> Result<Option<Self>, KeyError> {
        if sha256(bytes) == self.sha256 {
            return Ok(None);
        }
        Self::parse(source, bytes).map(Some).map_err(|problem| source.error(problem))
    }

    fn parse(source: &KeySource, bytes: &[u8]) -> Result<Self, String> {
        let single = |algorithm, decoding| vec![Key { kid: None, algorithm, decoding }];
        let keys = match source {
            KeySource::JwksFile(_) | KeySource::JwksUrl(_) => {
                let (keys, passed_over) = jwks(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes))?;
                for problem in passed_over {
                    tracing::warn!(problem, "a key of the JWK set is ignored");
                }
                keys
            }
            KeySource::PublicKeyFile(_) => public_key(bytes).map(|(algorithm, key)| single(algorithm, key))?,
            KeySource::SecretFile(_) | KeySource::Demo(_) => single(Algorithm::HS256, DecodingKey::from_secret(bytes)),
        };
        Ok(Self { keys, sha256: sha256(bytes), any_kid: !source.is_set() })
    }

    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the keys were not fetched yet.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that a token's header asks for, at least one; otherwise why the header is not acceptable. Several may have one `kid`
    /// (RFC 7517, 4.5); without a `kid` there is exactly one.
    pub fn select(&self, header: &Map<String, Value>) -> Result<Vec<&Key>, Unfit> {
        if header.contains_key("crit") {
            return Err(Unfit::Header("critical extension"));
        }
        if header.get("typ").is_some_and(|typ| typ.as_str().is_none_or(is_for_another_purpose)) {
            return Err(Unfit::Header("not an access token"));
        }
        let algorithm = header.get("alg").and_then(|alg| alg.as_str()?.parse::<Algorithm>().ok());
        let algorithm = algorithm.ok_or(Unfit::Header("unknown algorithm"))?;
        let kid = header.get("kid").map(|kid| kid.as_str().ok_or(Unfit::Header("the key ID is not a string"))).transpose()?;
        let named: Vec<_> = self.keys.iter().filter(|key| self.any_kid || kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))).collect();
        // No set has a key for HMAC.
        if named.is_empty() && algorithm.family() != AlgorithmFamily::Hmac {
            return Err(if self.is_empty() { Unfit::NoKeysYet } else { Unfit::UnknownKey });
        }
        let fitting: Vec<_> = named.into_iter().filter(|key| key.algorithm == algorithm).collect();
        match fitting.len() {
            0 => Err(Unfit::Header("no key of this algorithm")),
            1 => Ok(fitting),
            _ if kid.is_some() => Ok(fitting),
            _ => Err(Unfit::Header("no key ID, and several keys fit")),
        }
    }
}

/// Whether a `typ` says that the token is no access token, such as `logout+jwt` (RFC 8725, 3.11).
fn is_for_another_purpose(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    typ.ends_with("+jwt") && typ != "at+jwt"
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn read(path: &Path, content: Content) -> Result<Zeroizing<Vec<u8>>, String> {
    secret_file::read(path, content).map_err(|error| error.problem())
}

/// Reads a shared secret: raw bytes, one newline at the end dropped.
pub(super) fn shared_secret(path: &Path) -> Result<Secret, String> {
    let mut bytes = read(path, Content::Secret)?;
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
