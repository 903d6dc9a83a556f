//! Whole requests to the API, with its database behind it: every answer is an envelope, and no request makes an error of the service's own.

use std::{
    cell::{OnceCell, RefCell},
    mem::ManuallyDrop,
};

use api::state::Waiting;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use shared::codes::ErrorCode;
use tokio::{net::TcpStream, runtime::Runtime};

use super::with;

/// The server of the API's own tests.
#[expect(dead_code, clippy::all, clippy::pedantic, reason = "it belongs to other tests, which need more of it")]
#[path = "../../api/tests/http/support.rs"]
mod support;

/// Headers that say how a message is sent: the client writes them.
const OF_THE_CONNECTION: [&str; 9] =
    ["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

struct Server {
    /// Ends with the process. libFuzzer ends it while a connection may be on its way back to the pool, and sqlx returns one only on a thread that
    /// knows its runtime: this one has forgotten it by then.
    runtime: ManuallyDrop<Runtime>,
    api: support::Api,
    sender: RefCell<Option<SendRequest<Full<Bytes>>>>,
}

thread_local! {
    static SERVER: OnceCell<Server> = const { OnceCell::new() };
}

/// A request: a line with method and target, lines with headers, an empty line, and a body.
pub fn check(data: &[u8]) {
    let Some(asked) = Asked::read(data) else { return };
    with(&SERVER, Server::start, |server| server.runtime.block_on(server.check(&asked)));
}

#[derive(Clone)]
struct Asked {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    /// The request, if HTTP has such a one.
    fn read(data: &[u8]) -> Option<Self> {
        let (line, mut rest) = split_line(data);
        let at = line.iter().position(|byte| *byte == b' ')?;
        let method = Method::from_bytes(&line[..at]).ok().filter(|method| *method != Method::CONNECT)?;
        let target = line.get(at + 1..).filter(|target| target.starts_with(b"/"))?;
        let target = Uri::try_from(target).ok()?;
        let mut headers = HeaderMap::new();
        while !rest.is_empty() {
            let (line, after) = split_line(rest);
            rest = after;
            if line.is_empty() {
                break;
            }
            let at = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..at]).ok()?;
            if !OF_THE_CONNECTION.contains(&name.as_str()) {
                headers.append(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
            }
        }
        Some(Self { method, target, headers, body: Bytes::copy_from_slice(rest) })
    }

    /// The same request by the other prefix, if it has one.
    fn by_the_other_prefix(&self) -> Option<Self> {
        let rest = self.target.path_and_query()?.as_str().strip_prefix("/api/v4/")?;
        Some(Self { target: format!("/client/v4/{rest}").parse().ok()?, ..self.clone() })
    }
}

fn split_line(data: &[u8]) -> (&[u8], &[u8]) {
    data.iter().position(|byte| *byte == b'\n').map_or((data, &[]), |at| (&data[..at], &data[at + 1..]))
}

/// What an answer says: its status and the codes of its errors.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    status: StatusCode,
    codes: Vec<u64>,
}

impl Said {
    /// A machine that is busy may answer that the database is late.
    fn is_late(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Nothing becomes active without workers: there is nothing to wait for.
        let api = runtime.block_on(support::Api::with(|state| state.waiting = Waiting::new(0)));
        Self { runtime: ManuallyDrop::new(runtime), api, sender: RefCell::default() }
    }

    async fn check(&self, asked: &Asked) {
        let Some(said) = self.ask(asked).await else { return };
        if asked.method != Method::GET || asked.target.path().starts_with("/health/") {
            return;
        }
        for again in [Some(asked.clone()), asked.by_the_other_prefix()].into_iter().flatten() {
            let Some(other) = self.ask(&again).await else { return };
            assert!(other == said || other.is_late() || said.is_late(), "{said:?}, and then {other:?} of {}", again.target);
        }
        let head = Asked { method: Method::HEAD, ..asked.clone() };
        if let Some(other) = self.ask(&head).await {
            let is_same = other.status == said.status || other.status == StatusCode::METHOD_NOT_ALLOWED;
            assert!(is_same || other.is_late() || said.is_late(), "{said:?}, and {other:?} of HEAD");
        }
    }

    /// Sends it, and checks the answer. `None` if the client, or the server before it was a request, does not take it.
    async fn ask(&self, asked: &Asked) -> Option<Said> {
        let Asked { method, target, headers, body } = asked.clone();
        let mut request = Request::new(Full::new(body));
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, HeaderValue::from_static("csrd.test"));
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().entry(CONTENT_TYPE).or_insert(json);
        let token = HeaderValue::from_str(&format!("Bearer {}", self.api.all())).expect("a token");
        request.headers_mut().entry(AUTHORIZATION).or_insert(token);
        (*request.method_mut(), *request.uri_mut()) = (method.clone(), target.clone());

        let mut sender = self.connected().await;
        let response = sender.send_request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        self.sender.replace(Some(sender));

        assert!(head.headers.contains_key("x-request-id"), "an answer without an ID: {head:?}");
        assert_eq!(head.headers["x-content-type-options"], "nosniff");
        assert_ne!(head.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", String::from_utf8_lossy(&body));
        assert!(head.status.as_u16() <= 503, "{head:?}");
        let path = target.path();
        let of_the_api = ["/api/v4/", "/client/v4/"].iter().any(|prefix| path.starts_with(prefix));
        let codes = if method == Method::HEAD {
            assert!(body.is_empty());
            Vec::new()
        } else if is_page(path, &head.headers) {
            Vec::new()
        } else if of_the_api || head.status.as_u16() >= 400 {
            codes(head.status, &head.headers, &body)
        } else {
            Vec::new()
        };
        Some(Said { status: head.status, codes })
    }

    /// The connection of the last request, or a new one.
    async fn connected(&self) -> SendRequest<Full<Bytes>> {
        if let Some(mut sender) = self.sender.take() {
            if sender.ready().await.is_ok() {
                return sender;
            }
        }
        let address = self.api.base.strip_prefix("http://").expect("a URL");
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }
}

/// Whether a hand-over link's page answers: people read it, and it may load nothing.
fn is_page(path: &str, headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_html = content_type == "text/html; charset=utf-8";
    let path = percent_decode_str(path).decode_utf8_lossy();
    let is_of_a_link = path.strip_prefix("/handover").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    // What a page cannot say is said in plain text.
    if !is_of_a_link || !(is_html || content_type == "text/plain; charset=utf-8") {
        return false;
    }
    assert_eq!(headers["cache-control"], "no-store");
    assert!(
        !is_html || headers["content-security-policy"].to_str().is_ok_and(|policy| policy.starts_with("default-src 'none'; ")),
        "{headers:?}"
    );
    true
}

/// The codes of an envelope's errors.
fn codes(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Vec<u64> {
    let shown = || String::from_utf8_lossy(body);
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(content_type.starts_with("application/json"), "{status} with {content_type:?}: {}", shown());
    let envelope: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    assert_eq!(envelope["success"], status.as_u16() < 400, "{status}: {}", shown());
    let (errors, messages) = (envelope["errors"].as_array().expect("errors"), envelope["messages"].as_array().expect("messages"));
    assert_eq!(errors.is_empty(), status.as_u16() < 400, "{}", shown());
    for entry in errors.iter().chain(messages) {
        let pointer = entry["source"]["pointer"].as_str();
        assert!(pointer.is_none_or(|pointer| pointer.starts_with('/')), "{entry}");
        assert!(entry["message"].as_str().is_some_and(|message| !message.is_empty()), "{entry}");
    }
    let codes: Vec<u64> = errors.iter().map(|error| error["code"].as_u64().expect("a code")).collect();
    if let Some(first) = codes.first() {
        let code = ErrorCode::ALL.iter().find(|code| u64::from(code.number()) == *first);
        assert_eq!(code.map(|code| code.status()), Some(status.as_u16()), "{}", shown());
    }
    codes
}
