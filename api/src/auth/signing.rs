//! Signing tokens: for the demo identity, and for operators who share a secret with their identity provider.

use std::{path::Path, time::Duration};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use shared::clock::Timestamp;
use zeroize::Zeroizing;

pub use super::keys::Secret;
use super::{
    claims::is_subject,
    keys::{KeySource, shared_secret},
    settings::JwtSettings,
};
use crate::secret_file::{self, FileError};

const DEMO_SECRET_BYTES: usize = 32;

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Zones that it reaches; `*` for all.
    pub zones: Vec<String>,
    /// Accounts that it reaches; `*` for all.
    pub accounts: Vec<String>,
    /// Its permissions, or `None` for all.
    pub scope: Option<String>,
    /// Its `sub`.
    pub subject: String,
    /// How long it is valid.
    pub ttl: Duration,
}

/// A token could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// Such a token would reach nothing, and be refused.
    #[error("a token must reach at least one zone or account")]
    ReachesNothing,
    /// Such a token would be refused.
    #[error("--subject: 1 to 255 characters are expected, not all of them blank and none a control character")]
    BadSubject,
    /// The settings have a public key only.
    #[error("tokens can be signed with a shared secret (--jwt-secret-file) or with the demo identity's signing.key only")]
    NoSecret,
    /// The secret cannot be read.
    #[error("{0}")]
    Secret(String),
    /// The library refused.
    #[error("the token could not be signed: {0}")]
    Library(String),
}

/// Signs a token that these settings accept.
///
/// # Errors
///
/// [`SigningError`].
pub fn issue(settings: &JwtSettings, request: &TokenRequest, now: Timestamp) -> Result<String, SigningError> {
    if request.zones.is_empty() && request.accounts.is_empty() {
        return Err(SigningError::ReachesNothing);
    }
    if !is_subject(&request.subject) {
        return Err(SigningError::BadSubject);
    }
    let secret = match &settings.source {
        KeySource::Demo(secret) => secret.clone(),
        KeySource::SecretFile(path) => {
            shared_secret(path).map_err(|problem| SigningError::Secret(format!("--jwt-secret-file: {}: {problem}", path.display())))?
        }
        KeySource::JwksFile(_) | KeySource::JwksUrl(_) | KeySource::PublicKeyFile(_) => return Err(SigningError::NoSecret),
    };
    let claims = claims(settings, request, now);
    let key = EncodingKey::from_secret(&secret.0);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|error| SigningError::Library(error.to_string()))
}

fn claims(settings: &JwtSettings, request: &TokenRequest, now: Timestamp) -> Map<String, Value> {
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    claim("sub", json!(request.subject));
    claim("iat", json!(now.secs()));
    claim("exp", json!(now.plus(request.ttl).secs()));
    for (name, value) in [("iss", &settings.issuer), ("aud", &settings.audience), (settings.scope_claim.as_str(), &request.scope)] {
        if let Some(value) = value {
            claim(name, json!(value));
        }
    }
    for (name, ids) in [(&settings.zones_claim, &request.zones), (&settings.accounts_claim, &request.accounts)] {
        if !ids.is_empty() {
            claim(name, json!(ids));
        }
    }
    claims
}

/// Reads the demo identity's `signing.key`: one line, base64 of 32 bytes. Returns `None` if there is no such file.
///
/// # Errors
///
/// [`FileError`] if the file cannot be read, is readable for others, or holds something else.
pub fn load_demo_secret(path: &Path) -> Result<Option<Secret>, FileError> {
    let Some(line) = secret_file::read_secret_if_exists(path)? else { return Ok(None) };
    let bytes = STANDARD.decode(line.trim_ascii_end()).ok().map(Zeroizing::new).filter(|bytes| bytes.len() == DEMO_SECRET_BYTES);
    let broken = "it is not one line with the base64 of 32 bytes: remove it to have a new one made on a first start";
    let secret = bytes.ok_or_else(|| FileError::new(path, broken))?;
    Ok(Some(Secret(secret)))
}

/// Makes the demo identity's `signing.key`, readable for its owner only; never overwrites one.
///
/// # Errors
///
/// Where the file cannot be written or the system has no random numbers.
pub fn create_demo_secret(path: &Path) -> std::io::Result<Secret> {
    let mut bytes = Zeroizing::new(vec![0; DEMO_SECRET_BYTES]);
    rand::fill(&mut bytes).map_err(|_| std::io::Error::other("the system has no random numbers"))?;
    let mut line = Zeroizing::new(STANDARD.encode(&*bytes));
    line.push('\n');
    secret_file::create(path, line.as_bytes())?;
    Ok(Secret(bytes))
}
