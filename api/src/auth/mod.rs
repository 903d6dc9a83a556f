//! Authentication: who a token names, and what it reaches. It knows no HTTP framework.

pub mod access;

mod accepted;
mod claims;
mod key;
mod keys;
mod public_keys;
pub mod signing;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use shared::{
    bodies::json::Json,
    clock::Clock,
    codes::ErrorCode,
    ids::{Scope, TenantId},
};

pub use self::keys::{KeyError, KeySource};
use self::{
    accepted::{AcceptedTokens, TokenHash},
    claims::{Claims, Judged},
    keys::KeySet,
};

/// The longest token that is looked at, in bytes.
const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// How tokens are judged.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// Where the keys are.
    pub source: KeySource,
    /// The `iss` that is demanded.
    pub issuer: Option<String>,
    /// The `aud` that is demanded.
    pub audience: Option<String>,
    /// The name of the claim with the zones.
    pub zones_claim: String,
    /// The name of the claim with the accounts.
    pub accounts_claim: String,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// What a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// `custom_csrs:read`
    CustomCsrsRead,
    /// `custom_csrs:write`, which includes reading.
    CustomCsrsWrite,
    /// `custom_certificates:read`
    CustomCertificatesRead,
    /// `custom_certificates:write`, which includes reading.
    CustomCertificatesWrite,
}

impl Permission {
    /// All words of `scope` that allow something here.
    pub const WORDS: [&str; 4] = ["custom_csrs:read", "custom_csrs:write", "custom_certificates:read", "custom_certificates:write"];

    /// The words of `scope` (RFC 8693) that allow it.
    const fn words(self) -> &'static [&'static str] {
        match self {
            Self::CustomCsrsRead => &["custom_csrs:read", "custom_csrs:write"],
            Self::CustomCsrsWrite => &["custom_csrs:write"],
            Self::CustomCertificatesRead => &["custom_certificates:read", "custom_certificates:write"],
            Self::CustomCertificatesWrite => &["custom_certificates:write"],
        }
    }
}

/// Whom an accepted token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    subject: String,
    zones: Vec<String>,
    accounts: Vec<String>,
    /// The permissions; none where the token does not limit them.
    scope: Option<Vec<String>>,
}

impl Caller {
    /// The token's `sub`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether the token reaches this scope with this permission. An account in a token does not reach the account's zones.
    #[must_use]
    pub fn may(&self, scope: &Scope, permission: Permission) -> bool {
        let names = |ids: &[String], id: &TenantId| ids.iter().any(|named| named == "*" || named == id.as_str());
        let is_reached = match scope {
            Scope::Zone(id) => names(&self.zones, id),
            Scope::Account(id) => names(&self.accounts, id),
        };
        let allowed = self.scope.as_ref().is_none_or(|words| words.iter().any(|word| permission.words().contains(&word.as_str())));
        is_reached && allowed
    }
}

/// Judges tokens.
pub struct Authenticator {
    /// Replaced as a whole; a request is judged by the keys that it found first.
    keys: RwLock<Arc<Keys>>,
    claims: Claims,
    clock: Arc<dyn Clock>,
}

/// Keys, and the tokens that they verified. Other keys begin with none: what the former ones accepted, even just now, goes with them.
struct Keys {
    set: KeySet,
    accepted: AcceptedTokens,
}

impl Keys {
    fn new(set: KeySet) -> Self {
        Self { set, accepted: AcceptedTokens::default() }
    }

    fn load(source: &KeySource) -> Result<Arc<Self>, KeyError> {
        Ok(Arc::new(Self::new(KeySet::load(source)?)))
    }
}

impl Authenticator {
    /// Loads the keys.
    ///
    /// # Errors
    ///
    /// [`KeyError`], which names the setting and the file.
    pub fn new(settings: &JwtSettings, clock: Arc<dyn Clock>) -> Result<Self, KeyError> {
        Ok(Self { keys: RwLock::new(Keys::load(&settings.source)?), claims: Claims::new(settings), clock })
    }

    /// Loads the keys anew if their file changed, and judges by them from now on: their number, or `None` if nothing changed. The tokens
    /// that the former keys verified are forgotten with them. On an error the present keys stay.
    ///
    /// # Errors
    ///
    /// [`KeyError`], which names the setting and the file.
    pub fn reload_if_changed(&self, source: &KeySource) -> Result<Option<usize>, KeyError> {
        let Some(set) = self.keys().set.load_if_changed(source)? else { return Ok(None) };
        let count = set.len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Keys::new(set));
        Ok(Some(count))
    }

    /// Judges the values of a request's Authorization headers, in the order of the contract's table.
    ///
    /// # Errors
    ///
    /// 1402 and 1000 to 1005.
    pub fn authenticate(&self, authorization: &[&[u8]]) -> Result<Arc<Caller>, ErrorCode> {
        let header = match authorization {
            [] => return Err(ErrorCode::AuthorizationMissing),
            [one] => *one,
            _ => return Err(ErrorCode::BearerMissing),
        };
        let token = bearer(header).ok_or(ErrorCode::BearerMissing)?;
        self.judge(&self.keys(), token)
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Judges a token by these keys. Only what does not change about an accepted one is remembered: its time is looked at again.
    fn judge(&self, keys: &Keys, token: &str) -> Result<Arc<Caller>, ErrorCode> {
        let Some(hash) = TokenHash::of(token) else { return Ok(self.verify(&keys.set, token)?.caller) };
        let Some(judged) = keys.accepted.find(&hash) else {
            let judged = Arc::new(self.verify(&keys.set, token)?);
            keys.accepted.insert(hash, Arc::clone(&judged));
            return Ok(Arc::clone(&judged.caller));
        };
        if !self.claims.is_in_time(&judged, self.clock.now()) {
            keys.accepted.remove(&hash);
            return Err(ErrorCode::TokenUnverified);
        }
        Ok(Arc::clone(&judged.caller))
    }

    fn verify(&self, keys: &KeySet, token: &str) -> Result<Judged, ErrorCode> {
        let Token { header, payload, signed, signature } = Token::parse(token).ok_or(ErrorCode::TokenUnparsable)?;
        let fitting = object(&header).and_then(|header| keys.select(&header)).ok_or(ErrorCode::TokenHeaderBad)?;
        if !fitting.iter().any(|key| key.verifies(signed, signature)) {
            return Err(ErrorCode::TokenUnverified);
        }
        let payload = object(&payload).ok_or(ErrorCode::ClaimsUnreadable)?;
        self.claims.judge(&payload, self.clock.now())
    }
}

/// The token of a `Bearer` header (RFC 6750): one scheme, one token.
fn bearer(header: &[u8]) -> Option<&str> {
    let mut words = std::str::from_utf8(header).ok()?.split(' ').filter(|word| !word.is_empty());
    let (scheme, token) = (words.next()?, words.next()?);
    (scheme.eq_ignore_ascii_case("bearer") && words.next().is_none()).then_some(token)
}

/// A JWS in compact form (RFC 7515, 7.1), decoded but not judged.
struct Token<'a> {
    header: Vec<u8>,
    payload: Vec<u8>,
    /// What the signature is over.
    signed: &'a str,
    /// Still encoded.
    signature: &'a str,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        decode(signature)?;
        Some(Self { header: decode(header)?, payload: decode(payload)?, signed, signature })
    }
}

/// An object, if no member anywhere in it comes twice: what is read first and what is read last might be two tokens.
fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    Json::parse(bytes)?;
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests;
