//! Tokens: none is accepted that nobody signed, and of a signed one only what the claims allow.

use std::{cell::OnceCell, sync::Arc, time::Duration};

use api::auth::{Authenticator, Caller, JwtSettings, KeySource, Refusal, presented::Presented, signing::Secret};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::FutureExt;
use serde_json::{Map, Value};
use shared::{
    codes::ErrorCode,
    printable::{excerpt, is_printable},
};

use super::{Still, with};

const SECRET: [u8; 32] = [7; 32];
/// The most characters that the log shows of a name, with an ellipsis and escapes.
const SHOWN_MAX_CHARS: usize = 64 * 12 + 1;

thread_local! {
    static AUTHENTICATOR: OnceCell<Authenticator> = const { OnceCell::new() };
}

fn authenticator() -> Authenticator {
    authenticator_of(KeySource::Demo(Secret(SECRET.to_vec().into())))
}

/// One with this source of keys, and no demands on issuer and audience.
pub(super) fn authenticator_of(source: KeySource) -> Authenticator {
    Authenticator::new(&settings(source), Arc::new(Still)).expect("an authenticator")
}

fn settings(source: KeySource) -> JwtSettings {
    JwtSettings {
        source,
        issuer: None,
        audience: None,
        zones_claim: "zones".to_owned(),
        accounts_claim: "accounts".to_owned(),
        scope_claim: "scope".to_owned(),
        leeway: Duration::ZERO,
    }
}

/// Authenticates without waiting: no keys are to be fetched here, or they cannot be.
pub(super) fn authenticate(authenticator: &Authenticator, authorization: &[u8]) -> Result<Arc<Caller>, Refusal> {
    authenticator.authenticate(&[authorization]).now_or_never().expect("nothing to wait for")
}

/// These bytes as the value of an Authorization header; and their first line as the header of a signed token whose payload is the rest.
pub fn check(data: &[u8]) {
    with(&AUTHENTICATOR, authenticator, |authenticator| {
        check_presented(data);
        let refusal = authenticate(authenticator, data).expect_err("a token that nobody signed was accepted");
        assert!(is_refusal(&refusal), "{refusal:?}");
        if let Some(at) = data.iter().position(|byte| *byte == b'\n') {
            check_signed(authenticator, &data[..at], &data[at + 1..]);
        }
    });
}

fn is_refusal(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        ErrorCode::BearerMissing
            | ErrorCode::TokenUnparsable
            | ErrorCode::TokenHeaderBad
            | ErrorCode::TokenUnverified
            | ErrorCode::ClaimsUnreadable
            | ErrorCode::ClaimsMissing
    )
}

fn check_presented(authorization: &[u8]) {
    let Presented { subject, key_id } = Presented::read(authorization);
    for shown in [subject, key_id].into_iter().flatten() {
        assert!(shown.chars().all(is_printable) && shown.chars().count() <= SHOWN_MAX_CHARS, "{shown:?} goes into the log");
    }
}

/// A token with these parts, signed with HMAC and SHA-256 by this secret.
pub(super) fn signed(header: &[u8], payload: &[u8], secret: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn check_signed(authenticator: &Authenticator, header: &[u8], payload: &[u8]) {
    let token = format!("Bearer {}", signed(header, payload, &SECRET));
    check_presented(token.as_bytes());
    let caller = match authenticate(authenticator, token.as_bytes()) {
        Ok(caller) => caller,
        Err(refusal) => return assert!(is_refusal(&refusal), "{refusal:?}"),
    };
    let object = |bytes: &[u8]| serde_json::from_slice::<Map<String, Value>>(bytes).expect("an object");
    let (header, claims) = (object(header), object(payload));
    assert_eq!(header["alg"], "HS256");
    assert!(!header.contains_key("crit"), "a critical extension was passed over");
    let subject = claims["sub"].as_str().expect("a subject");
    assert_eq!(caller.subject(), subject);
    assert!((1..=255).contains(&subject.chars().count()) && !subject.chars().any(char::is_control));
    assert!(["zones", "accounts"].iter().any(|claim| claims.get(*claim).is_some_and(Value::is_array)));
    let secs = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century fit")]
    let now = super::NOW.secs() as f64;
    assert!(secs("exp").expect("exp") > now && secs("nbf").is_none_or(|not_before| not_before <= now), "accepted out of time");
    assert_eq!(Presented::read(token.as_bytes()).subject, Some(excerpt(subject, 64)), "the log names another subject");

    let again = authenticate(authenticator, token.as_bytes()).expect("accepted once more");
    assert_eq!(again.subject(), caller.subject());
    let (rest, signature) = token.rsplit_once('.').expect("a signature");
    for signature in ["", &signature[1..], &format!("{signature}A"), &signature.replace(char::is_alphabetic, "x")] {
        let refusal = authenticate(authenticator, format!("{rest}.{signature}").as_bytes()).expect_err("accepted with another signature");
        assert!(matches!(refusal.code, ErrorCode::TokenUnverified | ErrorCode::TokenUnparsable), "{refusal:?}");
    }
}
