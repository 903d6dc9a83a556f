//! What a token claims.

use std::sync::Arc;

use serde_json::{Map, Value};
use shared::{clock::Timestamp, codes::ErrorCode};

use super::{caller::Caller, refusal::Refusal, settings::JwtSettings};

/// The longest `sub`, in characters.
const SUBJECT_MAX_CHARS: usize = 255;
/// The claim with the permissions where no other is set (RFC 8693, 4.2), and what stands in for it.
const SCOPE_CLAIM: &str = "scope";
const OTHER_SCOPE_CLAIM: &str = "scp";
/// The latest time that microseconds in 64 bits can express, in seconds.
const LATEST_SECS: f64 = 9.2e12;

/// Checks claims by these settings.
pub(super) struct Claims {
    issuer: Option<String>,
    audience: Option<String>,
    zones_claim: String,
    accounts_claim: String,
    scope_claim: String,
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

type Claim<T> = Result<Option<T>, Refusal>;

impl Claims {
    pub fn new(settings: &JwtSettings) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            zones_claim: settings.zones_claim.clone(),
            accounts_claim: settings.accounts_claim.clone(),
            scope_claim: settings.scope_claim.clone(),
            leeway_secs: settings.leeway.as_secs_f64(),
        }
    }

    /// Checks first that every claim has its type (1004), then that none is absent (1005), then what they say (1003).
    pub fn check(&self, payload: &Map<String, Value>, now: Timestamp) -> Result<VerifiedToken, Refusal> {
        let (expires, not_before) = (expiry(payload)?, number(payload, "nbf")?);
        number(payload, "iat")?;
        let (subject, issuer) = (subject(payload)?, text(payload, "iss")?);
        let audience = one_or_more(payload, "aud")?;
        let (zones, accounts) = (texts(payload, &self.zones_claim)?, texts(payload, &self.accounts_claim)?);
        let scope = words(payload, self.scope_claim(payload))?;

        let expires = expires.ok_or_else(|| missing("exp"))?;
        let subject = subject.ok_or_else(|| missing("sub"))?;
        if zones.is_none() && accounts.is_none() {
            return Err(missing(&format!("{} or {}", self.zones_claim, self.accounts_claim)));
        }
        if self.issuer.is_some() && issuer.is_none() {
            return Err(missing("iss"));
        }
        if self.audience.is_some() && audience.is_none() {
            return Err(missing("aud"));
        }

        let wrong_issuer = self.issuer.is_some() && issuer != self.issuer;
        let wrong_audience = self.audience.as_ref().is_some_and(|wanted| audience.is_none_or(|audience| !audience.contains(wanted)));
        let caller = Caller { subject, zones: zones.unwrap_or_default(), accounts: accounts.unwrap_or_default(), scope };
        let verified = VerifiedToken { caller: Arc::new(caller), expires_secs: expires, not_before_secs: not_before };
        self.check_time(&verified, now)?;
        if wrong_issuer {
            return Err(Refusal::new(ErrorCode::TokenUnverified, "wrong issuer"));
        }
        if wrong_audience {
            return Err(Refusal::new(ErrorCode::TokenUnverified, "wrong audience"));
        }
        Ok(verified)
    }

    /// The claim with the permissions. Some identity providers call it `scp`, which counts where no other name is set.
    fn scope_claim(&self, payload: &Map<String, Value>) -> &str {
        let is_other = self.scope_claim == SCOPE_CLAIM && claim(payload, SCOPE_CLAIM).is_none();
        if is_other { OTHER_SCOPE_CLAIM } else { &self.scope_claim }
    }

    /// Checks that the token is neither expired nor early, with the leeway.
    pub fn check_time(&self, token: &VerifiedToken, now: Timestamp) -> Result<(), Refusal> {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit")]
        let now_secs = now.micros() as f64 / 1e6;
        if token.expires_secs + self.leeway_secs <= now_secs {
            let detail = format!("expired {:.0} s ago", now_secs - token.expires_secs);
            return Err(Refusal::new(ErrorCode::TokenUnverified, "expired").with_detail(detail));
        }
        if let Some(early_secs) = token.not_before_secs.map(|not_before| not_before - now_secs).filter(|early| *early > self.leeway_secs) {
            let detail = format!("not yet valid: it is in {early_secs:.0} s");
            return Err(Refusal::new(ErrorCode::TokenUnverified, "not yet valid").with_detail(detail));
        }
        Ok(())
    }
}

/// A claim; `null` is the same as absent.
fn claim<'a>(payload: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    payload.get(name).filter(|value| !value.is_null())
}

fn typed<T>(payload: &Map<String, Value>, name: &str, read: impl FnOnce(&Value) -> Option<T>) -> Claim<T> {
    let wrong_type = || Refusal::new(ErrorCode::ClaimsUnreadable, format!("the claim {name} is not what it must be"));
    claim(payload, name).map(|value| read(value).ok_or_else(wrong_type)).transpose()
}

fn missing(claim: &str) -> Refusal {
    Refusal::new(ErrorCode::ClaimsMissing, format!("the claim {claim} is missing"))
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

/// Permissions are words of one string, or strings of an array.
fn words(payload: &Map<String, Value>, name: &str) -> Claim<Vec<String>> {
    let split = |text: &str| text.split(' ').map(str::to_owned).collect();
    typed(payload, name, |value| value.as_str().map(split).or_else(|| strings(value)))
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}
