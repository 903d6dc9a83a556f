//! What stands beside an error: the cause, the place, and what was expected.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::testing::{actor, now, zone};

use crate::support::{Answer, Api, CONTACT_URL, NO_ID, PREFIXES, valid, with};

const PATH: &str = "/api/v4/zones/z/custom_csrs";
const HOUR: Duration = Duration::from_hours(1);

/// The hints of an answer, each with its source.
fn hints(answer: &Answer) -> Vec<(&str, &Value)> {
    let messages = answer.body["messages"].as_array().unwrap().iter().filter(|message| message["code"] == 2100);
    messages.map(|message| (message["message"].as_str().unwrap(), &message["source"])).collect()
}

/// The only hint of an answer with this code.
#[track_caller]
fn hint(answer: &Answer, code: u64) -> &str {
    assert_eq!(answer.code().1, code, "{answer:?}");
    let [(hint, source)] = hints(answer)[..] else { panic!("{answer:?}") };
    assert_eq!(source, &answer.body["errors"][0]["source"], "{answer:?}");
    hint
}

async fn send(api: &Api, method: Method, path: &str, token: &str) -> Answer {
    Answer::of(api.request(method, path).bearer_auth(token).json(&valid()).send().await.unwrap()).await
}

#[tokio::test]
async fn a_refused_token_is_told_the_cause_in_the_challenge() {
    let api = Api::start().await;
    let (good, expired) = (api.all(), api.token(&["*"], &[], None, Duration::ZERO));
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    for (token, cause) in [(expired.as_str(), "expired"), (forged.as_str(), "bad signature"), ("x", "not a JWT")] {
        let answer = send(&api, Method::GET, PATH, token).await;
        assert_eq!(answer.headers["www-authenticate"], format!("Bearer error=\"invalid_token\", error_description=\"{cause}\""));
        assert!(hints(&answer).is_empty(), "{answer:?}");
    }
    let anonymous = Answer::of(api.request(Method::GET, PATH).send().await.unwrap()).await;
    assert_eq!((anonymous.code(), &anonymous.headers["www-authenticate"]), ((400, 1402), &"Bearer".parse().unwrap()));
}

#[tokio::test]
async fn a_token_without_the_permission_is_told_which() {
    let api = Api::start().await;
    let token = api.token(&["z"], &[], Some("custom_csrs:read"), HOUR);
    let answer = send(&api, Method::POST, PATH, &token).await;
    assert!(hint(&answer, 1404).starts_with("The token lacks the permission custom_csrs:write."));
    let challenge = answer.headers["www-authenticate"].to_str().unwrap();
    assert!(
        challenge.starts_with("Bearer error=\"insufficient_scope\"") && challenge.ends_with("scope=\"custom_csrs:write\""),
        "{challenge}"
    );
    let answer = send(&api, Method::GET, "/api/v4/zones/z/custom_certificates", &token).await;
    assert!(hint(&answer, 1404).contains("custom_certificates:read"));
}

#[tokio::test]
async fn a_token_that_does_not_reach_a_zone_reads_the_same_whatever_the_zone_is() {
    let api = Api::start().await;
    api.grant("no-quota", None).await;
    api.grant("revoked", Some(5)).await;
    assert!(api.store.revoke_scope(&zone("revoked"), &actor(), now()).await.unwrap());
    let token = api.token(&["other"], &["a"], Some("custom_csrs:read"), HOUR);
    let mut answers = Vec::new();
    for id in ["z", "no-quota", "revoked", "unheard-of"] {
        for method in [Method::GET, Method::POST] {
            let answer = send(&api, method, &format!("/api/v4/zones/{id}/custom_csrs"), &token).await;
            assert!(!answer.headers.contains_key("www-authenticate"));
            answers.push(answer.body);
        }
    }
    assert!(answers[0]["messages"][0]["message"].as_str().unwrap().starts_with("The token does not reach this zone."));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn a_zone_is_told_whether_it_was_never_granted_or_revoked_or_has_no_quota_and_whom_to_ask() {
    let api = Api::start().await;
    api.grant("no-quota", None).await;
    api.grant("full", Some(0)).await;
    api.grant("revoked", Some(5)).await;
    assert!(api.store.revoke_scope(&zone("revoked"), &actor(), now()).await.unwrap());
    for (id, resource, code, words) in [
        ("unheard-of", "custom_csrs", 1404, "This zone was never granted"),
        ("revoked", "custom_csrs", 1404, "for this zone was revoked"),
        ("no-quota", "custom_csrs", 1403, "but no quota"),
        ("full", "custom_csrs", 1465, "larger quota"),
        ("unheard-of", "custom_certificates", 1404, "This zone was never granted"),
        ("revoked", "custom_certificates", 1404, "for this zone was revoked"),
    ] {
        for body in [valid(), json!({})] {
            let answer = api.post(&format!("/api/v4/zones/{id}/{resource}"), &body).await;
            if code == 1465 && body == json!({}) {
                continue;
            }
            let hint = hint(&answer, code);
            assert!(hint.contains(words) && hint.ends_with(&format!(" Contact: {CONTACT_URL}")), "{id}: {hint}");
        }
    }
    let account = api.post("/api/v4/accounts/unheard-of/custom_csrs", &valid()).await;
    assert!(hint(&account, 1404).starts_with("This account was never granted"));
}

#[tokio::test]
async fn a_list_says_that_its_zone_was_never_granted_and_only_then() {
    let api = Api::start().await;
    api.grant("revoked", Some(5)).await;
    assert!(api.store.revoke_scope(&zone("revoked"), &actor(), now()).await.unwrap());
    for resource in ["custom_csrs", "custom_certificates"] {
        for scope in ["zones/unheard-of", "accounts/unheard-of"] {
            let answer = api.get(&format!("/api/v4/{scope}/{resource}")).await;
            let [(hint, source)] = hints(&answer)[..] else { panic!("{answer:?}") };
            assert!(answer.status == 200 && hint.contains("was never granted custom CSRs") && source.is_null(), "{answer:?}");
        }
        for scope in ["zones/z", "zones/revoked", "accounts/a"] {
            assert!(hints(&api.get(&format!("/api/v4/{scope}/{resource}")).await).is_empty(), "{scope}");
        }
    }
}

#[tokio::test]
async fn a_body_is_told_where_it_breaks_and_which_types_its_members_have() {
    let api = Api::start().await;
    let answer = api.post_raw(PATH, "application/json", "{\n\"country\" \"US\"}").await;
    assert_eq!(hint(&answer, 1400), "Line 2, column 11: `:` is expected.");
    assert_eq!(hint(&api.post_raw(PATH, "application/json", "").await, 1400), "The body is empty: send a JSON object.");
    assert!(hint(&api.post_raw(PATH, "text/plain", "{}").await, 1400).contains("Content-Type must be application/json"));
    let mut body = with("sans", json!(["www.foo.com", 5]));
    body["country"] = json!({});
    let answer = api.post(PATH, &body).await;
    let sources: Vec<_> = hints(&answer).into_iter().map(|(hint, source)| (hint, source["pointer"].as_str().unwrap())).collect();
    let expected =
        [("/country must be a string, and is an object.", "/country"), ("/sans/1 must be a string, and is a number.", "/sans/1")];
    assert!(expected.iter().all(|hint| sources.contains(hint)) && sources.len() == 2, "{answer:?}");
    let id = api.create().await;
    for (method, path) in [(Method::PATCH, format!("{PATH}/{id}")), (Method::POST, format!("{PATH}/{id}/rekey"))] {
        let request = api.request(method, &path).bearer_auth(api.all()).json(&json!({ "name": [] }));
        assert_eq!(hint(&Answer::of(request.send().await.unwrap()).await, 1400), "/name must be a string, and is an array.");
    }
    let answer = api.post("/api/v4/zones/z/custom_certificates", &json!({ "priority": "high" })).await;
    assert!(hint(&answer, 1400).contains("/priority must be a whole number"));
}

#[tokio::test]
async fn each_san_is_told_its_name_and_the_one_rule_that_it_breaks() {
    let api = Api::start().await;
    let answer = api.post(PATH, &with("sans", json!(["*.foo.com", "www.foo.com", "shop.test", "co.uk", "foo.com."]))).await;
    let mut told: Vec<_> = hints(&answer).into_iter().map(|(hint, source)| (source["pointer"].as_str().unwrap(), hint)).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("/sans/0", "‘*.foo.com’ is a wildcard: this service does not allow wildcards."),
            ("/sans/2", "‘shop.test’ ends in .test, a top domain that is reserved."),
            ("/sans/3", "‘co.uk’ is a public suffix, under which others register names: add the label before it."),
            ("/sans/4", "‘foo.com.’ ends with a dot: leave it out."),
        ]
    );
    let answer = api.post(PATH, &with("sans", json!(vec!["a b"; 100]))).await;
    assert_eq!((answer.errors().len(), hints(&answer).len()), (100, 20));
}

#[tokio::test]
async fn parameters_headers_and_ids_are_named_with_what_they_must_be() {
    let api = Api::start().await;
    let answer = api.get(&format!("{PATH}?page=0&order=asc")).await;
    let told: Vec<_> = hints(&answer).into_iter().map(|(hint, source)| (source.clone(), hint)).collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], (json!({ "parameter": "page" }), "page must be a whole number from 1 to 2147483647, and is ‘0’."));
    assert_eq!((&told[1].0, answer.errors().len()), (&json!({ "parameter": "order" }), 2));
    for (query, named) in [("order=asc", Some("direction")), ("direction=Name", Some("order")), ("order=id", None), ("direction=up", None)]
    {
        let answer = api.get(&format!("{PATH}?{query}")).await;
        let (_, end) = hint(&answer, 1464).split_once("’.").unwrap();
        assert_eq!(end, named.map_or_else(String::new, |name| format!(" Send it as the parameter {name}.")), "{query}");
    }
    assert_eq!(answer.body["errors"][0]["source"], json!({ "parameter": "page" }));
    let answer = api.post("/api/v4/zones/z/custom_certificates?dry_run=yes", &json!({})).await;
    assert_eq!(answer.body["errors"][0]["source"], json!({ "parameter": "dry_run" }));
    let request = api.request(Method::POST, PATH).bearer_auth(api.all()).header("idempotency-key", "a b").json(&valid());
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert!(hint(&answer, 1464).contains("1 to 255"));
    assert_eq!(answer.body["errors"][0]["source"], json!({ "header": "Idempotency-Key" }));
    assert!(hint(&api.get(&format!("{PATH}/1")).await, 1418).contains("UUID"));
    assert!(hint(&api.get("/api/v4/zones/z/custom_certificates/1").await, 1480).contains("32 hexadecimal digits"));
}

#[tokio::test]
async fn a_trailing_slash_is_told_of_where_there_is_a_route_without_it() {
    let api = Api::start().await;
    for prefix in PREFIXES {
        for path in ["zones/z/custom_csrs", "accounts/a/custom_csrs/quota", &format!("zones/z/custom_csrs/{NO_ID}")] {
            let answer = api.get(&format!("{prefix}/{path}/")).await;
            assert_eq!(hint(&answer, 7000), format!("There is a route without the trailing slash: {prefix}/{path}."));
        }
        for path in ["zones/z/custom_csr/", "zones/z/", "zones/~/custom_csrs", "zones/z/custom_csr"] {
            let answer = api.get(&format!("{prefix}/{path}")).await;
            assert_eq!((answer.code(), hints(&answer).len()), ((404, 7000), 0), "{path}");
        }
    }
}
