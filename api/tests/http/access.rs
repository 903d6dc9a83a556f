//! Who may do what: every operation without a token, with too little, with another tenant's.

use std::time::Duration;

use reqwest::Method;

use crate::support::{Answer, Api, NO_ID, PREFIXES, valid};

const HOUR: Duration = Duration::from_hours(1);

/// Every operation on zone `z` and account `a`.
fn operations() -> Vec<(Method, String)> {
    let mut all = Vec::new();
    for prefix in PREFIXES {
        for scope in ["zones/z", "accounts/a"] {
            let collection = format!("{prefix}/{scope}/custom_csrs");
            all.push((Method::POST, collection.clone()));
            all.push((Method::GET, collection.clone()));
            all.push((Method::GET, format!("{collection}/{NO_ID}")));
            all.push((Method::PATCH, format!("{collection}/{NO_ID}")));
            all.push((Method::DELETE, format!("{collection}/{NO_ID}")));
            all.push((Method::POST, format!("{collection}/{NO_ID}/rekey")));
            all.push((Method::GET, format!("{collection}/quota")));
        }
        let certificates = format!("{prefix}/zones/z/custom_certificates");
        let certificate = format!("{certificates}/{}", NO_ID.replace('-', ""));
        all.extend([(Method::POST, certificates.clone()), (Method::GET, certificates.clone())]);
        all.extend([Method::GET, Method::PATCH, Method::DELETE].map(|method| (method, certificate.clone())));
        let of_account = |path: &str| path.replace("zones/z", "accounts/a");
        all.push((Method::GET, of_account(&certificates)));
        all.extend([Method::GET, Method::DELETE].map(|method| (method, of_account(&certificate))));
    }
    all
}

async fn code(api: &Api, method: Method, path: &str, authorization: Option<&str>) -> (u16, u64) {
    let mut request = api.request(method, path).json(&valid());
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    Answer::of(request.send().await.unwrap()).await.code()
}

#[tokio::test]
async fn no_operation_works_without_a_token_or_with_a_bad_one() {
    let api = Api::start().await;
    let expired = api.token(&["*"], &["*"], None, Duration::ZERO);
    let good = api.all();
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    for (method, path) in operations() {
        assert_eq!(code(&api, method.clone(), &path, None).await, (400, 1402), "{method} {path}");
        for (header, expected) in [
            ("Basic dTpw".to_owned(), 1000),
            (format!("Bearer {good} {good}"), 1000),
            ("Bearer x".to_owned(), 1001),
            ("Bearer e30.e30.e30".to_owned(), 1002),
            (format!("Bearer {forged}"), 1003),
            (format!("Bearer {expired}"), 1003),
        ] {
            assert_eq!(code(&api, method.clone(), &path, Some(&header)).await, (401, expected), "{method} {path} {header}");
        }
    }
}

#[tokio::test]
async fn a_token_of_another_tenant_is_1404_everywhere_and_learns_nothing() {
    let api = Api::start().await;
    for token in [api.token(&["other"], &["other"], None, HOUR), api.token(&["a"], &["z"], None, HOUR)] {
        for (method, path) in operations() {
            assert_eq!(code(&api, method.clone(), &path, Some(&format!("Bearer {token}"))).await, (403, 1404), "{method} {path}");
            let bad_id = path.replace(NO_ID, "%ff");
            assert_eq!(code(&api, method, &bad_id, Some(&format!("Bearer {token}"))).await, (403, 1404));
        }
    }
    let account_only = format!("Bearer {}", api.token(&[], &["a"], None, HOUR));
    assert_eq!(code(&api, Method::GET, "/api/v4/zones/z/custom_csrs", Some(&account_only)).await, (403, 1404), "not the account's zones");
}

#[tokio::test]
async fn a_token_without_the_permission_is_1404_and_write_includes_read() {
    let api = Api::start().await;
    let scopes = [
        "",
        "zones:read",
        "custom_csrs:read",
        "custom_csrs:write",
        "custom_certificates:read",
        "custom_certificates:write custom_csrs:read",
    ];
    for scope in scopes {
        let token = format!("Bearer {}", api.token(&["z"], &["a"], Some(scope), HOUR));
        for (method, path) in operations() {
            let resource = if path.contains("custom_certificates") { "custom_certificates" } else { "custom_csrs" };
            let words: Vec<&str> = scope.split(' ').collect();
            let writes = words.contains(&&*format!("{resource}:write"));
            let allowed = writes || (method == Method::GET && words.contains(&&*format!("{resource}:read")));
            let refused = code(&api, method.clone(), &path, Some(&token)).await == (403, 1404);
            assert_eq!(refused, !allowed, "{method} {path} {scope:?}");
        }
    }
}

#[tokio::test]
async fn a_custom_csr_of_one_scope_is_not_found_in_another_even_with_a_token_for_both() {
    let api = Api::start().await;
    let id = api.create().await;
    for scope in ["zones/y", "accounts/a", "accounts/z"] {
        for method in [Method::GET, Method::DELETE] {
            assert_eq!(api.send(method, &format!("/api/v4/{scope}/custom_csrs/{id}")).await.code(), (404, 1419), "{scope}");
        }
        assert_eq!(api.get(&format!("/api/v4/{scope}/custom_csrs")).await.body["result_info"]["total_count"], 0);
    }
    assert_eq!(api.get(&format!("/api/v4/zones/z/custom_csrs/{id}")).await.status, 200);
}

#[tokio::test]
async fn a_body_is_too_large_only_for_those_who_are_known() {
    let api = Api::start().await;
    let large = "x".repeat(64 * 1024 + 1);
    for (method, path) in operations() {
        let anonymous = api.request(method.clone(), &path).body(large.clone()).send().await.unwrap();
        assert_eq!(Answer::of(anonymous).await.code(), (400, 1402), "{method} {path}");
        let stranger = api.request(method.clone(), &path).bearer_auth(api.token(&["other"], &[], None, HOUR)).body(large.clone());
        assert_eq!(Answer::of(stranger.send().await.unwrap()).await.code(), (413, 1467), "size comes before access");
    }
}
