use std::{path::PathBuf, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;
use shared::{
    clock::Timestamp,
    ids::{Scope, TenantId},
};
use tempfile::TempDir;

use super::{
    super::caller::Permission,
    super::signing::{Secret, SigningError, TokenRequest, create_demo_secret, issue, load_demo_secret},
    *,
};

mod attacks;
mod cache;
mod keys;

const NOW_SECS: i64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(NOW_SECS * 1_000_000)
    }
}

fn settings(source: KeySource) -> JwtSettings {
    JwtSettings {
        source,
        issuer: None,
        audience: None,
        zones_claim: "zones".into(),
        accounts_claim: "accounts".into(),
        scope_claim: "scope".into(),
        leeway: Duration::from_mins(1),
    }
}

fn demo() -> JwtSettings {
    settings(KeySource::Demo(Secret(SECRET.to_vec().into())))
}

fn authenticator(settings: &JwtSettings) -> Authenticator {
    Authenticator::new(settings, Arc::new(FixedClock)).unwrap()
}

fn claims() -> Value {
    json!({ "exp": NOW_SECS + 10, "sub": "me", "zones": ["z"] })
}

/// The claims with one replaced.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn hs256(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn judge(settings: &JwtSettings, token: &str) -> Result<Arc<Caller>, u16> {
    authenticator(settings).judge(&[format!("Bearer {token}").as_bytes()]).map_err(|refusal| refusal.code.number())
}

/// A token with this header and a signature by the secret all the same.
fn with_header(header: &Value) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims().to_string().as_bytes()));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

fn signed_payload(payload: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(payload));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

#[test]
fn a_header_must_be_one_bearer_and_one_token() {
    let authenticator = authenticator(&demo());
    let judge = |headers: &[&[u8]]| authenticator.judge(headers).map(drop).map_err(|refusal| refusal.code.number());
    let token = hs256(&claims());
    assert_eq!(judge(&[]), Err(1402));
    for bad in ["", "Bearer", "Bearer ", "Basic abc", token.as_str(), &format!("Bearer {token} x"), &format!("Token {token}")] {
        assert_eq!(judge(&[bad.as_bytes()]), Err(1000), "{bad}");
    }
    assert_eq!(judge(&[b"Bearer \xff"]), Err(1000));
    let good = format!("bEARER {token}");
    assert_eq!(judge(&[good.as_bytes(), good.as_bytes()]), Err(1000));
    assert_eq!(judge(&[good.as_bytes()]), Ok(()));
}

#[test]
fn a_token_is_three_base64url_parts() {
    for bad in ["a", "a.b", "a.b.c.d", "YQ.YQ.!", "YQ==.YQ.YQ", "YQ.Y+Q/.YQ"] {
        assert_eq!(judge(&demo(), bad), Err(1001), "{bad}");
    }
    assert_eq!(judge(&demo(), ".."), Err(1002));
    // Three bytes more in the payload are four more in the token.
    let unpadded = hs256(&with("padding", json!(""))).len();
    let padding = (TOKEN_MAX_BYTES - unpadded) / 4 * 3;
    let [longest, over] = [padding, padding + 6].map(|bytes| hs256(&with("padding", json!("x".repeat(bytes)))));
    assert!(longest.len() <= TOKEN_MAX_BYTES && over.len() > TOKEN_MAX_BYTES);
    assert!(judge(&demo(), &longest).is_ok());
    assert_eq!(judge(&demo(), &over), Err(1001), "over 16 KiB");
    let token = hs256(&claims());
    let unsigned = &token[..=token.rfind('.').unwrap()];
    assert_eq!(judge(&demo(), unsigned), Err(1003), "an empty signature counts as a part");
}

#[test]
fn a_header_that_is_not_acceptable_is_1002() {
    for bad in [
        json!([]),
        json!({}),
        json!({"alg": 5}),
        json!({"alg": "none"}),
        json!({"alg": "None"}),
        json!({"alg": "HS512"}),
        json!({"alg": "RS256"}),
        json!({"alg": "HS256", "crit": ["b64"]}),
        json!({"alg": "HS256", "crit": []}),
        json!({"alg": "HS256", "kid": 5}),
        json!({"alg": "HS256", "kid": null}),
        json!({"alg": "HS256", "typ": 5}),
    ] {
        assert_eq!(judge(&demo(), &with_header(&bad)), Err(1002), "{bad}");
    }
    for typ in ["at+jwt", "application/AT+JWT", "JWT", "jwt", "JOSE"] {
        assert!(judge(&demo(), &with_header(&json!({"alg": "HS256", "kid": "any", "typ": typ}))).is_ok(), "{typ}");
    }
    for typ in ["logout+jwt", "dpop+jwt", "application/secevent+jwt", "Logout+JWT"] {
        assert_eq!(judge(&demo(), &with_header(&json!({"alg": "HS256", "typ": typ}))), Err(1002), "{typ}");
    }
}

#[test]
fn a_wrong_signature_is_1003_whatever_the_payload_is() {
    let expired_and_forged = hs256(&with("exp", json!(1)));
    let forged = format!("{}AAAA", &expired_and_forged[..expired_and_forged.len() - 4]);
    assert_eq!(judge(&demo(), &forged), Err(1003));
    let unreadable = signed_payload(b"5");
    assert_eq!(judge(&demo(), &format!("{}AAAA", &unreadable[..unreadable.len() - 4])), Err(1003));
}

#[test]
fn claims_of_a_wrong_type_are_1004_before_absent_ones_are_1005() {
    for payload in [&b"5"[..], b"", b"[]", b"{", b"\xff"] {
        assert_eq!(judge(&demo(), &signed_payload(payload)), Err(1004));
    }
    for (name, value) in [
        ("exp", json!("soon")),
        ("nbf", json!("now")),
        ("iat", json!({})),
        ("sub", json!(5)),
        ("iss", json!([])),
        ("aud", json!(5)),
        ("aud", json!([5])),
        ("zones", json!("z")),
        ("zones", json!([1])),
        ("accounts", json!({})),
        ("scope", json!(5)),
        ("scope", json!({})),
        ("scope", json!(["a", 5])),
        ("scp", json!(true)),
        ("scp", json!(["a", null])),
        ("exp", json!(1e308)),
        ("exp", json!(1e13)),
        ("sub", json!("")),
        ("sub", json!(" \u{a0}")),
        ("sub", json!("a\u{0}")),
        ("sub", json!("a\u{9b}b")),
        ("sub", json!("x".repeat(256))),
    ] {
        let mut claims = with(name, value);
        claims.as_object_mut().unwrap().remove(if name == "sub" { "exp" } else { "sub" });
        assert_eq!(judge(&demo(), &hs256(&claims)), Err(1004), "{claims}");
    }
}

#[test]
fn an_absent_required_claim_is_1005_even_where_the_token_is_expired() {
    for name in ["exp", "sub", "zones"] {
        let mut claims = with("exp", json!(1));
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(judge(&demo(), &hs256(&claims)), Err(1005), "{name}");
        claims[name] = json!(null);
        assert_eq!(judge(&demo(), &hs256(&claims)), Err(1005), "{name} is null");
    }
    let strict = JwtSettings { issuer: Some("i".into()), audience: Some("a".into()), ..demo() };
    assert_eq!(judge(&strict, &hs256(&with("iss", json!("i")))), Err(1005));
    assert_eq!(judge(&strict, &hs256(&with("aud", json!("a")))), Err(1005));
}

#[test]
fn validity_is_judged_with_the_leeway() {
    let exp = |secs: f64| judge(&demo(), &hs256(&with("exp", json!(secs)))).map(drop);
    #[expect(clippy::cast_precision_loss, reason = "small enough")]
    let now = NOW_SECS as f64;
    assert_eq!(exp(now - 60.0), Err(1003));
    assert_eq!(exp(now - 59.5), Ok(()));
    let nbf = |secs: f64| judge(&demo(), &hs256(&with("nbf", json!(secs)))).map(drop);
    assert_eq!(nbf(now + 61.0), Err(1003));
    assert_eq!(nbf(now + 60.0), Ok(()));
}

#[test]
fn issuer_and_audience_are_checked_where_they_are_set_and_ignored_otherwise() {
    let mut claims = with("iss", json!("other"));
    claims["aud"] = json!(["a", "b"]);
    assert!(judge(&demo(), &hs256(&claims)).is_ok());
    let strict = JwtSettings { issuer: Some("i".into()), audience: Some("b".into()), ..demo() };
    assert_eq!(judge(&strict, &hs256(&claims)), Err(1003));
    claims["iss"] = json!("i");
    assert!(judge(&strict, &hs256(&claims)).is_ok());
    claims["aud"] = json!("c");
    assert_eq!(judge(&strict, &hs256(&claims)), Err(1003));
}

#[test]
fn a_caller_reaches_what_its_token_names_and_no_more() {
    let zone = |id: &str| Scope::Zone(TenantId::parse(id).unwrap());
    let account = |id: &str| Scope::Account(TenantId::parse(id).unwrap());
    let caller = |claims: Value| judge(&demo(), &hs256(&claims)).unwrap();
    let one = caller(with("accounts", json!(["a"])));
    assert_eq!(one.subject(), "me");
    assert!(one.check(&zone("z"), Permission::CustomCsrsWrite).is_ok() && one.check(&account("a"), Permission::CustomCsrsRead).is_ok());
    assert!(one.check(&zone("a"), Permission::CustomCsrsRead).is_err() && one.check(&account("z"), Permission::CustomCsrsRead).is_err());
    assert!(one.check(&zone("Z"), Permission::CustomCsrsRead).is_err());
    let all = caller(with("zones", json!(["*"])));
    assert!(
        all.check(&zone("any"), Permission::CustomCsrsWrite).is_ok() && all.check(&account("any"), Permission::CustomCsrsRead).is_err()
    );
    for (scope, read, write) in [
        ("custom_csrs:read", true, false),
        ("openid custom_csrs:write", true, true),
        ("", false, false),
        ("custom_csrs", false, false),
        ("Custom_csrs:read", false, false),
    ] {
        let limited = caller(with("scope", json!(scope)));
        let may =
            (limited.check(&zone("z"), Permission::CustomCsrsRead).is_ok(), limited.check(&zone("z"), Permission::CustomCsrsWrite).is_ok());
        assert_eq!(may, (read, write), "{scope}");
    }
}

/// Whether a token with these claims, judged by the claim of this name, may read and write.
fn may(scope_claim: &str, claims: &Value) -> Result<(bool, bool), u16> {
    let zone = Scope::Zone(TenantId::parse("z").unwrap());
    let caller = judge(&JwtSettings { scope_claim: scope_claim.into(), ..demo() }, &hs256(claims))?;
    Ok((caller.check(&zone, Permission::CustomCsrsRead).is_ok(), caller.check(&zone, Permission::CustomCsrsWrite).is_ok()))
}

#[test]
fn permissions_are_words_or_an_array_and_scp_stands_in_for_a_scope_that_is_absent() {
    let claims = |more: Value| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let (read, nothing, all) = (Ok((true, false)), Ok((false, false)), Ok((true, true)));
    for (claim, more, expected) in [
        ("scope", json!({"scope": ["openid", "custom_csrs:read"]}), read),
        ("scope", json!({"scope": []}), nothing),
        ("scope", json!({"scp": "openid custom_csrs:read"}), read),
        ("scope", json!({"scp": ["custom_csrs:read"]}), read),
        ("scope", json!({"scp": ""}), nothing),
        ("scope", json!({"scope": null, "scp": "custom_csrs:read"}), read),
        ("scope", json!({"scope": "custom_csrs:read", "scp": "custom_csrs:write"}), read),
        ("scope", json!({"scope": "custom_csrs:read", "scp": 5}), read),
        ("scope", json!({"scope": "", "scp": "custom_csrs:write"}), nothing),
        ("scope", json!({"scp": 5}), Err(1004)),
        ("scope", json!({"scope": 5, "scp": "custom_csrs:read"}), Err(1004)),
        ("roles", json!({"roles": ["custom_csrs:read"]}), read),
        ("roles", json!({"roles": "custom_csrs:read", "scope": "custom_csrs:write"}), read),
        ("roles", json!({"roles": ["custom_csrs:read", ["custom_csrs:write"]]}), Err(1004)),
        // Only the name that is set says what is allowed.
        ("roles", json!({"scope": "custom_csrs:read", "scp": "custom_csrs:read"}), all),
        ("roles", json!({"scope": 5, "scp": 5}), all),
        ("scope", json!({}), all),
    ] {
        assert_eq!(may(claim, &claims(more.clone())), expected, "{claim} {more}");
    }
}

#[test]
fn a_subject_of_255_characters_will_do_and_a_member_that_comes_twice_will_not() {
    assert!(judge(&demo(), &hs256(&with("sub", json!("ü".repeat(255))))).is_ok());
    let payload = format!(r#"{{"exp":{0},"sub":"me","zones":["z"],"zones":["other"]}}"#, NOW_SECS + 10);
    assert_eq!(judge(&demo(), &signed_payload(payload.as_bytes())), Err(1004));
    let nested = format!(r#"{{"exp":{0},"sub":"me","zones":["z"],"x":{{"a":1,"a":2}}}}"#, NOW_SECS + 10);
    assert_eq!(judge(&demo(), &signed_payload(nested.as_bytes())), Err(1004));
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims().to_string()));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256).unwrap();
    assert_eq!(judge(&demo(), &format!("{signed}.{signature}")), Err(1002));
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join("file");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }
}

#[test]
fn an_issued_token_is_accepted_by_the_settings_it_was_issued_with() {
    let settings = JwtSettings {
        issuer: Some("i".into()),
        audience: Some("a".into()),
        zones_claim: "https://example.net/zones".into(),
        scope_claim: "roles".into(),
        ..demo()
    };
    let request = TokenRequest {
        zones: vec!["z".into()],
        accounts: vec!["a".into()],
        scope: Some("custom_csrs:read".into()),
        subject: "ops".into(),
        ttl: Duration::from_mins(1),
    };
    let token = issue(&settings, &request, FixedClock.now()).unwrap();
    let caller = judge(&settings, &token).unwrap();
    assert_eq!(caller.scope, Some(vec!["custom_csrs:read".to_owned()]));
    assert_eq!((caller.subject(), &*caller.zones, &*caller.accounts), ("ops", &["z".to_owned()][..], &["a".to_owned()][..]));
    let files = Files::new();
    let public = JwtSettings { source: KeySource::PublicKeyFile(files.write("")), ..settings };
    assert_eq!(issue(&public, &request, FixedClock.now()), Err(SigningError::NoSecret));
}

#[test]
fn a_token_that_reaches_nothing_is_not_issued() {
    let request = |zones| TokenRequest { zones, accounts: vec![], scope: None, subject: "ops".into(), ttl: Duration::from_mins(1) };
    assert_eq!(issue(&demo(), &request(vec![]), FixedClock.now()), Err(SigningError::ReachesNothing));
    let token = issue(&demo(), &request(vec!["z".into()]), FixedClock.now()).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let expected = json!({"sub": "ops", "iat": NOW_SECS, "exp": NOW_SECS + 60, "zones": ["z"]});
    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), expected, "nothing that is not set is claimed");
}

#[test]
fn a_signing_key_reads_back_is_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let path = files.0.path().join("signing.key");
    assert!(load_demo_secret(&path).unwrap().is_none());
    let made = create_demo_secret(&path).unwrap();
    assert_eq!(load_demo_secret(&path).unwrap().unwrap().0, made.0);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(create_demo_secret(&path).is_err());
    assert_eq!(format!("{made:?}"), "Secret(…)");
    let line = std::fs::read_to_string(&path).unwrap();
    for junk in [String::new(), "junk".into(), line.repeat(2), format!("{line}x"), "AAAA\n".into()] {
        std::fs::write(&path, junk).unwrap();
        assert!(load_demo_secret(&path).is_err());
    }
}

proptest! {
    #[test]
    fn no_header_makes_it_panic(header: Vec<u8>, parts in prop::collection::vec("[A-Za-z0-9_-]{0,20}", 0..4)) {
        let authenticator = authenticator(&demo());
        prop_assert!(authenticator.judge(&[&header]).is_err());
        let token = parts.join(".");
        let bearer = format!("Bearer {token}");
        prop_assert!(authenticator.judge(&[bearer.as_bytes()]).is_err());
    }

    #[test]
    fn no_signed_payload_makes_it_panic(payload: Vec<u8>, exp: f64, nbf: f64) {
        let outcome = judge(&demo(), &signed_payload(&payload));
        prop_assert!(matches!(outcome, Err(1004 | 1005)), "{outcome:?}");
        let claims = json!({"exp": exp, "nbf": nbf, "sub": "me", "zones": []});
        let outcome = judge(&demo(), &hs256(&claims)).map(drop);
        prop_assert!(matches!(outcome, Ok(()) | Err(1003 | 1004)), "{outcome:?}");
    }
}
