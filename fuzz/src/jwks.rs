//! JWK sets: whoever knows a set, and its issuer publishes it, can sign nothing with it.

use std::cell::OnceCell;

use api::auth::{Authenticator, KeyError, KeySource};
use futures::FutureExt;
use serde_json::{Value, json};
use shared::{codes::ErrorCode, outbound::Url};
use tokio::runtime::Runtime;

use super::{
    assert_is_one_line,
    tokens::{authenticate, authenticator_of, signed},
    with,
};

thread_local! {
    static SOURCE: OnceCell<(Runtime, KeySource)> = const { OnceCell::new() };
}

/// The source, and the clock of those who wait for its keys.
fn source() -> (Runtime, KeySource) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    (runtime, KeySource::JwksUrl("https://issuer.test/jwks".parse::<Url>().expect("a URL")))
}

/// These bytes as a set.
pub fn check(data: &[u8]) {
    with(&SOURCE, source, |(runtime, source)| {
        let _entered = runtime.enter();
        let authenticator = authenticator_of(source.clone());
        let set = serde_json::from_slice::<Value>(data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data)).ok();
        match load(&authenticator, source, data) {
            Ok(count) => {
                let keys = set.as_ref().and_then(|set| set["keys"].as_array()).expect("a set has keys");
                assert!(count.is_some_and(|count| (1..=keys.len()).contains(&count)), "{count:?} keys of {}", keys.len());
                assert_eq!(load(&authenticator, source, data), Ok(None), "the same set is another one");
                let written = serde_json::to_vec(&set).expect("JSON");
                assert_eq!(load(&authenticator_of(source.clone()), source, &written), Ok(count), "written out it has other keys");
                check_confusion(&authenticator, data, keys);
            }
            Err(error) => {
                assert_is_one_line_of_many(&error);
                assert!(authenticator.waits_for_keys().is_some(), "keys of a set that was refused are in use");
            }
        }
    });
}

fn load(authenticator: &Authenticator, source: &KeySource, set: &[u8]) -> Result<Option<usize>, KeyError> {
    authenticator.refetch(source, async { Ok::<_, String>(set.to_vec()) }).now_or_never().expect("nothing to wait for")
}

/// A set may have any number of keys, each with a fault of its own.
fn assert_is_one_line_of_many(error: &KeyError) {
    for part in error.to_string().split("; ") {
        assert_is_one_line(part);
    }
}

/// Tokens that name no algorithm, or take what was published for a shared secret.
fn check_confusion(authenticator: &Authenticator, set: &[u8], keys: &[Value]) {
    let payload = json!({"sub": "me", "exp": 4_000_000_000_u32, "zones": ["*"]}).to_string();
    let names = keys.iter().take(3).map(|key| key.get("kid").cloned()).chain([None]);
    for name in names {
        for algorithm in ["none", "HS256", "RS256", "ES256", "EdDSA"] {
            let mut header = json!({"alg": algorithm});
            if let Some(name) = &name {
                header["kid"] = name.clone();
            }
            let token = signed(header.to_string().as_bytes(), payload.as_bytes(), set);
            let unsigned = token.rsplit_once('.').map(|(signed, _)| format!("{signed}.")).expect("a signature");
            for token in [token, unsigned] {
                // For a key with an ID that the set lacks, the request would wait.
                let outcome = authenticator.authenticate(&[format!("Bearer {token}").as_bytes()]).now_or_never();
                let Some(outcome) = outcome else { continue };
                let refusal = outcome.err().expect("a token that its holder made was accepted");
                assert!(matches!(refusal.code, ErrorCode::TokenHeaderBad | ErrorCode::TokenUnverified), "{refusal:?}");
            }
        }
    }
    assert!(authenticate(authenticator, b"Bearer ..").is_err());
}
