//! What pages of other sites may do from a browser.

use api::http::cors::Origins;
use reqwest::{
    Method, Response,
    header::{HeaderMap, HeaderValue},
};

use crate::support::Api;

const PATH: &str = "/api/v4/zones/z/custom_csrs";
const OURS: [&str; 2] = ["https://app.example", "http://localhost:3000"];
const ASKED: &str = "authorization,content-type,idempotency-key,if-none-match,prefer,x-stainless-lang";
const EXPOSED: [&str; 8] =
    ["ETag", "Location", "Retry-After", "X-Request-Id", "Preference-Applied", "Idempotent-Replayed", "X-Should-Retry", "WWW-Authenticate"];

async fn with_origins() -> Api {
    Api::with(|state| state.cors_origins = OURS.iter().map(|origin| HeaderValue::from_static(origin)).collect::<Origins>()).await
}

async fn preflight(api: &Api, path: &str, origin: &str) -> Response {
    let request = api.request(Method::OPTIONS, path).header("origin", origin).header("access-control-request-method", "POST");
    request.header("access-control-request-headers", ASKED).send().await.unwrap()
}

fn words(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers[name].to_str().unwrap().split(',').map(|word| word.trim().to_ascii_lowercase()).collect()
}

fn has_no_leave(headers: &HeaderMap) -> bool {
    headers.keys().all(|name| !name.as_str().starts_with("access-control-"))
}

#[tokio::test]
async fn a_preflight_of_an_allowed_origin_is_answered_without_a_token() {
    let api = with_origins().await;
    for (origin, path) in [(OURS[0], PATH), (OURS[1], "/client/v4/accounts/a/custom_csrs"), (OURS[0], "/nowhere")] {
        let answer = preflight(&api, path, origin).await;
        let headers = answer.headers();
        assert_eq!((answer.status().as_u16(), headers["access-control-allow-origin"].to_str().unwrap()), (204, origin), "{path}");
        let methods = words(headers, "access-control-allow-methods");
        assert!(["get", "post", "patch", "delete"].iter().all(|method| methods.contains(&(*method).to_owned())), "{methods:?}");
        assert_eq!(headers["access-control-allow-headers"], ASKED, "clients have headers of their own");
        assert!(words(headers, "vary").contains(&"origin".to_owned()) && headers.contains_key("x-request-id"));
        assert!(!headers.contains_key("access-control-allow-credentials"), "nothing here is done with cookies");
    }
}

#[tokio::test]
async fn pages_of_an_allowed_origin_may_read_every_answer_errors_too() {
    let api = with_origins().await;
    let oversized = "x".repeat(70_000);
    let requests = [
        (200, api.request(Method::GET, PATH).bearer_auth(api.all())),
        (401, api.request(Method::GET, PATH).bearer_auth("x")),
        (400, api.request(Method::GET, PATH)),
        (404, api.request(Method::GET, "/nowhere")),
        (405, api.request(Method::PUT, PATH).bearer_auth(api.all())),
        (405, api.request(Method::OPTIONS, PATH)),
        (413, api.request(Method::POST, PATH).bearer_auth(api.all()).body(oversized)),
        (200, api.request(Method::GET, "/openapi.json")),
    ];
    for (status, request) in requests {
        let answer = request.header("origin", OURS[0]).send().await.unwrap();
        let headers = answer.headers();
        assert_eq!((answer.status().as_u16(), headers["access-control-allow-origin"].to_str().unwrap()), (status, OURS[0]));
        let exposed = words(headers, "access-control-expose-headers");
        assert!(EXPOSED.iter().all(|name| exposed.contains(&name.to_ascii_lowercase())), "{exposed:?}");
        assert!(words(headers, "vary").contains(&"origin".to_owned()));
    }
}

#[tokio::test]
async fn other_origins_are_answered_as_ever_and_get_no_leave() {
    let api = with_origins().await;
    for origin in
        ["https://evil.example", "https://app.example.evil.example", "http://app.example", "https://app.example:8443", "null", "*"]
    {
        let answer = api.request(Method::GET, PATH).bearer_auth(api.all()).header("origin", origin).send().await.unwrap();
        assert!(answer.status() == 200 && has_no_leave(answer.headers()), "{origin}");
        assert!(words(answer.headers(), "vary").contains(&"origin".to_owned()), "a cache keeps them apart");
        let refused = preflight(&api, PATH, origin).await;
        assert!(refused.status() == 405 && has_no_leave(refused.headers()), "{origin}");
    }
}

#[tokio::test]
async fn without_the_setting_no_origin_gets_leave() {
    let api = Api::start().await;
    let answer = api.request(Method::GET, PATH).bearer_auth(api.all()).header("origin", OURS[0]).send().await.unwrap();
    assert!(answer.status() == 200 && has_no_leave(answer.headers()) && !answer.headers().contains_key("vary"));
    let refused = preflight(&api, PATH, OURS[0]).await;
    assert!(refused.status() == 405 && has_no_leave(refused.headers()));
}
