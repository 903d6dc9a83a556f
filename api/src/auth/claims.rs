//! What a token claims.

use std::sync::Arc;

use serde_json::{Map, Value};
use shared::{clock::Timestamp, codes::ErrorCode};

use super::{caller::Caller, settings::JwtSettings};

/// The longest `sub`, in characters.
const SUBJECT_MAX_CHARS: usize = 255;
/// The latest time that microseconds in 64 bits can express, in seconds.
const LATEST_SECS: f64 = 9.2e12;

/// Checks claims by these settings.
pub(super) struct Claims {
    issuer: Option<String>,
    audience: Option<String>,
    zones_claim: String,
    accounts_claim: String,
    leeway_secs: f64,
}

/// What a token says that was verified.
pub(super) struct VerifiedToken {
    pub caller: Arc<Caller>,
    /// `exp`, in seconds since the Unix epoch.
    expires_secs: f64,
    /// `nbf`, likewise.
    not_before_secs: Option<f64>,
}

/// A claim has another type than it must.
struct WrongType;

type Claim<T> = Result<Option<T>, WrongType>;

impl From<WrongType> for ErrorCode {
    fn from(WrongType: WrongType) -> Self {
        Self::ClaimsUnreadable
    }
}

impl Claims {
    pub fn new(settings: &JwtSettings) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            zones_claim: settings.zones_claim.clone(),
            accounts_claim: settings.accounts_claim.clone(),
            leeway_secs: settings.leeway.as_secs_f64(),
        }
    }

    /// Checks first that every claim has its type (1004), then that none is absent (1005), then what they say (1003).
    pub fn check(&self, payload: &Map<String, Value>, now: Timestamp) -> Result<VerifiedToken, ErrorCode> {
        let (expires, not_before) = (expiry(payload)?, number(payload, "nbf")?);
        number(payload, "iat")?;
        let (subject, issuer) = (subject(payload)?, text(payload, "iss")?);
        let audience = one_or_more(payload, "aud")?;
        let (zones, accounts) = (texts(payload, &self.zones_claim)?, texts(payload, &self.accounts_claim)?);
        let scope = text(payload, "scope")?;

        let (Some(expires), Some(subject)) = (expires, subject) else { return Err(ErrorCode::ClaimsMissing) };
        if (zones.is_none() && accounts.is_none())
            || (self.issuer.is_some() && issuer.is_none())
            || (self.audience.is_some() && audience.is_none())
        {
            return Err(ErrorCode::ClaimsMissing);
        }

        let wrong_issuer = self.issuer.is_some() && issuer != self.issuer;
        let wrong_audience = self.audience.as_ref().is_some_and(|wanted| audience.is_none_or(|audience| !audience.contains(wanted)));
        let words = |scope: String| scope.split(' ').map(str::to_owned).collect();
        let caller = Caller { subject, zones: zones.unwrap_or_default(), accounts: accounts.unwrap_or_default(), scope: scope.map(words) };
        let verified = VerifiedToken { caller: Arc::new(caller), expires_secs: expires, not_before_secs: not_before };
        if wrong_issuer || wrong_audience || !self.is_in_time(&verified, now) {
            return Err(ErrorCode::TokenUnverified);
        }
        Ok(verified)
    }

    /// Whether the token is neither expired nor early, with the leeway.
    pub fn is_in_time(&self, token: &VerifiedToken, now: Timestamp) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit")]
        let now_secs = now.micros() as f64 / 1e6;
        let is_expired = token.expires_secs + self.leeway_secs <= now_secs;
        let is_early = token.not_before_secs.is_some_and(|not_before| not_before - self.leeway_secs > now_secs);
        !is_expired && !is_early
    }
}

/// A claim; `null` is the same as absent.
fn claim<'a>(payload: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    payload.get(name).filter(|value| !value.is_null())
}

fn typed<T>(payload: &Map<String, Value>, name: &str, read: impl FnOnce(&Value) -> Option<T>) -> Claim<T> {
    claim(payload, name).map(|value| read(value).ok_or(WrongType)).transpose()
}

fn number(payload: &Map<String, Value>, name: &str) -> Claim<f64> {
    typed(payload, name, Value::as_f64)
}

/// `exp`, if it is a time that can come: tokens that never expire are refused.
fn expiry(payload: &Map<String, Value>) -> Claim<f64> {
    typed(payload, "exp", |value| value.as_f64().filter(|secs| *secs < LATEST_SECS))
}

fn subject(payload: &Map<String, Value>) -> Claim<String> {
    typed(payload, "sub", |value| value.as_str().filter(|subject| is_subject(subject)).map(str::to_owned))
}

/// Whether a token may name this: 1 to 255 characters, not all of them blank, none a control character. It goes into every audit entry.
pub(super) fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_MAX_CHARS).contains(&text.chars().count()) && !text.trim().is_empty() && !text.chars().any(char::is_control)
}

fn text(payload: &Map<String, Value>, name: &str) -> Claim<String> {
    typed(payload, name, |value| value.as_str().map(str::to_owned))
}

fn texts(payload: &Map<String, Value>, name: &str) -> Claim<Vec<String>> {
    typed(payload, name, strings)
}

/// `aud` is one string or several (RFC 7519, 4.1.3).
fn one_or_more(payload: &Map<String, Value>, name: &str) -> Claim<Vec<String>> {
    typed(payload, name, |value| value.as_str().map(|one| vec![one.to_owned()]).or_else(|| strings(value)))
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}
