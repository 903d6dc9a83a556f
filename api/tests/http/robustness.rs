//! Bad input: an answer in the envelope, never a panic, nothing written.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Api, valid};

const PATH: &str = "/api/v4/zones/z/custom_csrs";

#[tokio::test]
async fn bodies_that_are_no_json_object_are_1400_alone_and_write_nothing() {
    let api = Api::start().await;
    let valid = valid().to_string();
    let repeated = valid.replacen('{', "{\"country\":\"US\",", 1);
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"{".to_vec(),
        "[".repeat(60_000).into_bytes(),
        "{\"a\":".repeat(12_000).into_bytes(),
        repeated.into_bytes(),
        valid.replace("California", "\\ud800").into_bytes(),
        valid.replace("California", "\u{0}").into_bytes(),
        [valid.as_bytes(), b"x"].concat(),
        valid.bytes().map(|b| if b == b'C' { 0xff } else { b }).collect(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = api.post_raw(PATH, "application/json", body).await;
        assert_eq!((answer.status, answer.errors()), (400, vec![(1400, None)]), "{shown}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp", "multipart/form-data; boundary=x"] {
        assert_eq!(api.post_raw(PATH, content_type, valid.clone()).await.code(), (400, 1400), "{content_type}");
    }
    assert_eq!(api.get(PATH).await.body["result_info"]["total_count"], 0);
    assert_eq!(api.post_raw(PATH, "Application/JSON ; charset=UTF-8", valid).await.status, 201);
}

#[tokio::test]
async fn a_body_of_64_kib_is_read_and_one_byte_more_is_1467_chunked_or_not() {
    let api = Api::start().await;
    let padded = |length: usize| {
        let body = valid().to_string();
        let padding = "x".repeat(length - body.len() - ",\"pad\":\"\"".len());
        body.replacen('}', &format!(",\"pad\":\"{padding}\"}}"), 1)
    };
    assert_eq!(padded(65_536).len(), 65_536);
    assert_eq!(api.post_raw(PATH, "application/json", padded(65_536)).await.status, 201);
    for length in [65_537, 1 << 20, 5 << 20] {
        let body = padded(length);
        assert_eq!(api.post_raw(PATH, "application/json", body.clone()).await.code(), (413, 1467));
        let chunks =
            futures::stream::iter(body.into_bytes().chunks(8_192).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>());
        assert_eq!(api.post_raw(PATH, "application/json", reqwest::Body::wrap_stream(chunks)).await.code(), (413, 1467));
    }
}

#[tokio::test]
async fn ten_thousand_sans_are_refused_as_too_many() {
    let api = Api::start().await;
    let mut body = valid();
    body["sans"] = serde_json::json!(vec!["a.b"; 9_000]);
    assert_eq!(api.post(PATH, &body).await.code(), (400, 1463));
    body["sans"] = serde_json::json!(vec!["a.b.c"; 10_000]);
    assert_eq!(api.post(PATH, &body).await.code(), (413, 1467));
}

/// Sends bytes and reads what comes until the server closes.
async fn raw(api: &Api, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap();
    // The server may close before it read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    match tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await {
        Ok(Err(error)) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        Ok(_) => {}
        Err(elapsed) => panic!("the server neither answered nor closed: {elapsed}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_http_is_closed_and_the_server_goes_on() {
    let api = Api::start().await;
    let long = format!("GET /health/live HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    for request in [long.as_bytes(), b"\x16\x03\x01junk\r\n\r\n", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let answer = raw(&api, request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"), "{answer}");
    }
    let old = raw(&api, b"GET /health/live HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200") && old.ends_with('}'), "{old}");
    assert_eq!(api.get("/health/live").await.status, 200);
}

#[tokio::test]
async fn a_request_that_two_parsers_may_read_differently_is_1400_and_the_connection_is_closed() {
    let api = Api::start().await;
    let (host, encoding) = ("A request has exactly one Host.", "The header Transfer-Encoding must be chunked, or absent.");
    // hyper sees it before us.
    let own = "Transfer-Encoding must be chunked, or absent.";
    let requests = [
        ("GET /health/live HTTP/1.1\r\n\r\n", host),
        ("GET /health/live HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", host),
        ("GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", host),
        ("GET http://a/health/live HTTP/1.1\r\n\r\n", host),
        ("GET /health/live HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", host),
        ("GET /health/live HTTP/1.1\r\nHost: x\"><b\r\n\r\n", "The header Host must be a host"),
        ("GET /health/live HTTP/1.1\r\nHost: u@a\r\n\r\n", "The header Host must be a host"),
        ("POST /health/live HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", own),
        ("POST /health/live HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", own),
        ("POST /health/live HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", own),
        ("POST /health/live HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", own),
        ("POST /health/live HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", encoding),
        ("POST /health/live HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", encoding),
        ("POST /health/live HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", encoding),
    ];
    for (request, hint) in requests {
        let answer = raw(&api, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{request}: {answer}");
        for part in
            ["\"code\":1400", hint, "x-request-id", "connection: close", "cache-control: no-store", "x-content-type-options: nosniff"]
        {
            assert!(answer.contains(part), "{request}: {answer}");
        }
    }
    let chunked = "POST /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n";
    assert!(raw(&api, chunked.as_bytes()).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn nothing_is_answered_after_a_request_whose_end_two_parsers_may_see_in_two_places() {
    let api = Api::start().await;
    let (lengths, next) = (
        ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"],
        "GET /docs HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for length in lengths {
        let answer = raw(&api, format!("POST /health/live HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n0\r\n\r\n{next}").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{length}: {answer}");
    }
    for header in
        ["A: b\r\n folded", "A : b", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: +5", "Transfer-Encoding: identity"]
    {
        let answer = raw(&api, format!("POST /health/live HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n0\r\n\r\n{next}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.matches("HTTP/1.1 ").count() == 1, "{header}: {answer}");
    }
}

#[tokio::test]
async fn plain_text_http_2_is_closed_at_once() {
    let api = Api::start().await;
    let answer = raw(&api, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 505"), "{answer}");
}

#[tokio::test]
async fn nothing_is_read_of_the_body_of_a_client_whose_token_is_not_accepted() {
    let api = Api::start().await;
    let head =
        format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\nExpect: 100-continue\r\n");
    for (authorization, status) in [(String::new(), "400"), ("Authorization: Bearer x.y.z\r\n".to_owned(), "401")] {
        let answer = raw(&api, format!("{head}{authorization}\r\n").as_bytes()).await;
        assert!(answer.contains("connection: close"), "the next request is to take another connection: {answer}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "no 100 comes before it: {answer}");
    }
    let mut stream = TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(format!("{head}Authorization: Bearer {}\r\n\r\n", api.all()).as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
}

#[tokio::test]
async fn every_response_is_kept_by_nobody_and_the_documents_are_asked_for_again() {
    let api = Api::start().await;
    for path in [PATH, "/health/live", "/health/ready", "/nothing", "/api/v4/zones//custom_csrs"] {
        let answer = api.get(path).await;
        assert_eq!(
            (&answer.headers["cache-control"], &answer.headers["x-content-type-options"]),
            (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap()),
            "{path}"
        );
        assert!(answer.headers.contains_key("date"), "{path}");
    }
    for path in ["/docs", "/openapi.json", "/openapi.yaml"] {
        let response = api.client.get(format!("{}{path}", api.base)).send().await.unwrap();
        assert_eq!(
            (&response.headers()["cache-control"], &response.headers()["x-content-type-options"]),
            (&"no-cache".parse().unwrap(), &"nosniff".parse().unwrap()),
            "{path}"
        );
        let policy = response.headers().get("content-security-policy").map(|policy| policy.to_str().unwrap().to_owned());
        assert_eq!(policy.is_some_and(|policy| policy.contains("frame-ancestors 'none'")), path == "/docs");
    }
}

#[tokio::test]
async fn a_connection_that_sends_nothing_does_not_hold_up_the_end() {
    let mut api = Api::start().await;
    let address = api.base.trim_start_matches("http://").to_owned();
    let silent = TcpStream::connect(&address).await.unwrap();
    let mut half = TcpStream::connect(&address).await.unwrap();
    half.write_all(b"GET /health/live HTTP/1.1\r\nHost:").await.unwrap();
    assert_eq!(api.get("/health/live").await.status, 200);
    let stopped = tokio::time::timeout(Duration::from_secs(5), api.stop()).await;
    assert!(stopped.unwrap(), "nothing was in flight");
    drop((silent, half));
}

#[tokio::test]
async fn a_body_that_is_cut_off_writes_nothing() {
    let api = Api::start().await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n", api.all());
    let mut stream = TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap();
    let body = valid().to_string();
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{}", body.len() + 1, body).as_bytes()).await.unwrap();
    drop(stream);
    assert_eq!(api.get(PATH).await.body["result_info"]["total_count"], 0);
}

#[tokio::test]
async fn a_request_in_flight_is_answered_when_the_server_stops() {
    let mut api = Api::start().await;
    let body = valid().to_string();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        api.all(),
        body.len()
    );
    let mut stream = TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..10]).await.unwrap();
    // An answer to a later request shows that the earlier one was taken.
    assert_eq!(api.get("/health/live").await.status, 200);
    let address = api.base.trim_start_matches("http://").to_owned();
    let rest = async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        stream.write_all(&body.as_bytes()[10..]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (answer, drained) = tokio::join!(rest, api.stop());
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(drained);
}
