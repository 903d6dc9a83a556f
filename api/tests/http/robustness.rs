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
