//! What one client cannot take from the others.

use std::{sync::Arc, time::Duration};

use api::http::{client::TrustedProxies, rate_limit::RateLimits};
use futures::future::join_all;
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::support::{Answer, Api, valid};

const PATH: &str = "/api/v4/zones/z/custom_csrs";

#[tokio::test]
async fn the_audit_table_names_the_client_for_whom_a_trusted_proxy_asks() {
    for (trusted, from) in [("127.0.0.0/8", "192.0.2.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let api = Api::with(|state| state.trusted_proxies = TrustedProxies::new(&[trusted.parse().unwrap()])).await;
        let request = api.request(Method::POST, PATH).bearer_auth(api.all()).json(&valid());
        let request = request.header("x-forwarded-for", "203.0.113.9, 192.0.2.7").header("x-forwarded-for", "127.0.0.9");
        assert_eq!(request.send().await.unwrap().status(), 201);
        let entries = format!("SELECT COUNT(*) FROM audit WHERE action = 'create' AND origin = '{from}'");
        assert_eq!(api.test.number(&entries).await, 1, "{trusted}");
    }
}

/// The head of a POST whose body has its length declared, or comes in chunks.
fn head(api: &Api, length: Option<usize>) -> String {
    let length = length.map_or_else(|| "Transfer-Encoding: chunked".to_owned(), |length| format!("Content-Length: {length}"));
    let token = api.all();
    format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n{length}\r\n\r\n")
}

/// Sends a part of a request, and leaves it at that.
async fn begin(api: &Api, part: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(part.as_bytes()).await.unwrap();
    stream
}

/// Waits until this much room for bodies is free.
async fn until_free(room: &Semaphore, bytes: usize) {
    let free = async {
        while room.available_permits() != bytes {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_mins(1), free).await.unwrap();
}

#[tokio::test]
async fn bodies_that_are_being_read_share_their_room_and_what_does_not_fit_is_1471() {
    let room = Arc::new(Semaphore::new(1_000));
    let api = Api::with(|state| state.body_bytes = Arc::clone(&room)).await;
    let chunk = format!("384\r\n{}", "x".repeat(0x384));
    for (part, free) in [(head(&api, Some(950)), 50), (head(&api, Some(950)) + "{", 50), (head(&api, None) + &chunk, 100)] {
        let slow = begin(&api, &part).await;
        until_free(&room, free).await;
        let refused = api.post(PATH, &valid()).await;
        assert_eq!(refused.code(), (503, 1471));
        assert!(refused.headers.contains_key("retry-after") && !refused.headers.contains_key("x-should-retry"));
        assert_eq!(api.get(PATH).await.status, 200, "a request without a body needs no room");
        drop(slow);
        until_free(&room, 1_000).await;
        assert_eq!(api.post(PATH, &valid()).await.status, 201);
    }
}

#[tokio::test]
async fn room_for_a_body_is_given_back_whatever_becomes_of_its_request() {
    let room = Arc::new(Semaphore::new(100_000));
    let api = Api::with(|state| state.body_bytes = Arc::clone(&room)).await;
    let (long, none) = ("x".repeat(66_000), "0\r\n\r\n");
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let bodies = [
        (head(&api, Some(valid().to_string().len())), valid().to_string(), "201"),
        (head(&api, Some(2)), "[]".to_owned(), "400"),
        (head(&api, None), chunk("{}") + none, "400"),
        (head(&api, None), chunk(&long) + none, "413"),
        (head(&api, None), chunk("{") + "no length\r\n", "400"),
        (head(&api, Some(66_000)), String::new(), "413"),
    ];
    for (head, body, status) in bodies {
        let mut stream = begin(&api, &(head + &body)).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
        until_free(&room, 100_000).await;
    }
    drop(begin(&api, &head(&api, Some(500))).await);
    until_free(&room, 100_000).await;
}

#[tokio::test]
async fn a_request_that_waits_holds_no_room_for_its_body() {
    let room = Arc::new(Semaphore::new(1_000));
    let api = Api::with(|state| state.body_bytes = Arc::clone(&room)).await;
    let body = valid().to_string();
    let head = head(&api, Some(body.len())).replace("Host", "Prefer: wait=30\r\nHost");
    let waiting = begin(&api, &(head + &body)).await;
    while api.get(PATH).await.body["result_info"]["total_count"] == 0 {}
    until_free(&room, 1_000).await;
    drop(waiting);
}

#[tokio::test]
async fn a_subject_that_asks_too_often_is_1470_with_a_retry_after_until_a_second_is_over() {
    let api = Api::with(|state| state.rate_limits = Arc::new(RateLimits::new(1, 0))).await;
    let refused = loop {
        let answers = join_all((0..20).map(|_| api.post_raw(PATH, "application/json", "x".repeat(70_000)))).await;
        let (refused, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 429);
        assert!(others.iter().all(|answer| answer.code() == (413, 1467)));
        if let Some(refused) = refused.into_iter().next() {
            break refused;
        }
    };
    assert_eq!(refused.code(), (429, 1470));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.body["messages"][0]["code"], 2100);
    assert_eq!(api.get("/health/live").await.status, 200);
    let unknown = api.client.get(format!("{}{PATH}", api.base)).send().await.unwrap();
    assert_eq!(unknown.status(), 400, "nobody is limited for what no token says");
    timeout(Duration::from_mins(1), async { while api.get(PATH).await.status == 429 {} }).await.unwrap();
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_1470_before_its_token_is_looked_at_and_the_others_are_not() {
    let api = Api::with(|state| {
        state.rate_limits = Arc::new(RateLimits::new(0, 1));
        state.trusted_proxies = TrustedProxies::new(&["127.0.0.1".parse().unwrap()]);
    })
    .await;
    // Refused after the token, and before the database is asked, which may be slow.
    let path = format!("{PATH}/no-uuid");
    let ask = async |from: &str, token: &str| {
        let request = api.request(Method::GET, &path).bearer_auth(token).header("x-forwarded-for", from);
        Answer::of(request.send().await.unwrap()).await
    };
    let good = api.all();
    for _ in 0..100 {
        assert_eq!(ask("192.0.2.1", &good).await.code(), (400, 1418), "what succeeds uses up nothing");
    }
    let mut failed = 0;
    // One more is heard every second, so they come together: however slow the machine is, some are too many.
    let refused = loop {
        let (bad, good) =
            tokio::join!(join_all((0..100).map(|_| ask("192.0.2.1", "x.y.z"))), join_all((0..20).map(|_| ask("192.0.2.1", &good))));
        failed += bad.iter().filter(|answer| answer.code() == (401, 1001)).count();
        if let Some(refused) = good.into_iter().find(|answer| answer.status == 429) {
            break refused;
        }
    };
    assert!(failed >= 50, "{failed}");
    assert_eq!((refused.code(), &refused.headers["retry-after"]), ((429, 1470), &"1".parse().unwrap()));
    assert!(!refused.headers.contains_key("www-authenticate"));
    assert_eq!(ask("192.0.2.2", &good).await.status, 400);
    assert_eq!(ask("192.0.2.2", "x.y.z").await.status, 401);
    timeout(Duration::from_mins(1), async { while ask("192.0.2.1", &good).await.status == 429 {} }).await.unwrap();
}
