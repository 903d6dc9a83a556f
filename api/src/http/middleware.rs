//! What every request passes: it gets an ID and a line in the log, and is refused if it is not sound.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use percent_encoding::percent_decode_str;
use poem::{
    Endpoint, IntoResponse, Request, Response,
    http::{
        HeaderMap, HeaderName, HeaderValue, Uri, Version, header,
        uri::{Authority, PathAndQuery},
    },
};
use shared::{
    clock::{Clock, SystemClock},
    codes::ErrorCode,
    handover,
    ids::{TenantId, is_plain},
    issue::Issue,
};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    client::{Client, TrustedProxies},
    error::{ApiError, Told},
};
use crate::auth::presented::Presented;

/// Names a request in its response and in every line of the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest path in the log, in bytes.
const PATH_SHOWN_BYTES: usize = 512;

/// The largest body that is read, in bytes.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// Whether the body of a connection's last request was not read to its end.
#[derive(Debug, Clone, Default)]
pub struct UnreadBody(Arc<AtomicBool>);

impl UnreadBody {
    /// Whether something of it is left.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Sets whether something of it is left.
    pub fn set(&self, unread: bool) {
        self.0.store(unread, Ordering::SeqCst);
    }
}

/// The ID of a request: the client's own, or a new one.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Stands for a path segment that cannot be an ID: no route and no ID is the same.
const NO_ID: &str = "~";

/// Gives every request an ID, its [`Client`], a span that carries the ID through the log, and a last line.
pub async fn with_request_id<E: Endpoint>(endpoint: Arc<E>, mut req: Request, proxies: TrustedProxies) -> poem::Result<Response> {
    let id = req.header(REQUEST_ID).filter(|id| is_plain(id)).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    req.extensions_mut().insert(RequestId(id.clone()));
    let client = Client::of(&req, &proxies);
    req.extensions_mut().insert(client);
    // Of the highest level, so that the remaining lines have the ID at --log-level warn too.
    let span = tracing::error_span!("request", request_id = %id);
    async move {
        let (method, path, started) = (req.method().clone(), shown_path(&req), Instant::now());
        let authorization = req.headers().get(header::AUTHORIZATION).cloned();
        let mut response = endpoint.get_response(req).await;
        let status = response.status().as_u16();
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Told { codes, cause } = response.extensions_mut().remove().unwrap_or_default();
        // A probe or a scrape comes every few seconds.
        if path.starts_with("/health/") || (path == "/metrics" && codes.is_none()) {
            tracing::debug!(%method, path, status, micros, codes, reason = cause, "answered");
        } else if let Some(codes) = codes {
            let Presented { subject, key_id } = authorization.map(|value| Presented::read(value.as_bytes())).unwrap_or_default();
            let from = client.name();
            tracing::info!(%method, path, status, micros, codes, reason = cause, sub = subject, kid = key_id, from, "answered");
        } else {
            tracing::info!(%method, path, status, micros, "answered");
        }
        add_common_headers(response.headers_mut());
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        Ok(response)
    }
    .instrument(span)
    .await
}

/// The part of the path that the log shows: a path may have 64 KiB, and the path of a hand-over link has its secret.
fn shown_path(req: &Request) -> String {
    let path = req.uri().path();
    // As the router sees it: escapes must not hide a link.
    if has_link_secret(&percent_decode_str(path).decode_utf8_lossy()) {
        return format!("{}/{NO_ID}", handover::PATH);
    }
    let end = path.floor_char_boundary(PATH_SHOWN_BYTES);
    path[..end].to_owned()
}

/// Whether something follows the first segment of a hand-over link, wherever that stands and however it is mistyped: a link that a proxy or a
/// person got wrong is no route, and its secret is good all the same. A zone may be called so, and the links of a custom CSR have IDs there, which
/// are no secrets.
fn has_link_secret(path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').collect();
    let name = handover::PATH.trim_start_matches('/');
    let is_link = |segment: &str| segment.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let before = |at: usize, count: usize| at.checked_sub(count).map(|at| segments[at]);
    let is_of_api = |at: usize| matches!(before(at, 1), Some("zones" | "accounts")) || before(at, 2) == Some("custom_csrs");
    let mut links = segments.iter().enumerate().filter(|(at, segment)| is_link(segment) && !is_of_api(*at));
    links.any(|(at, _)| segments[at + 1..].iter().any(|rest| !rest.is_empty()))
}

/// Refuses a request that is not sound, and closes its connection. Decodes percent-encoded path segments, so that routes and operations
/// get plain ones; a segment that decodes to something that no ID has, as `%ff` and `%2F` do, becomes [`NO_ID`].
pub async fn with_plain_request<E: Endpoint>(endpoint: Arc<E>, mut req: Request) -> poem::Result<Response> {
    if let Err(hint) = check_sound(&req) {
        let mut response = ApiError::from(Issue::new(ErrorCode::BodyUndecodable).hinting(hint)).into_response();
        if req.version() <= Version::HTTP_11 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        return Ok(response);
    }
    let path = req.uri().path();
    if path.contains('%') {
        let path = path.split('/').map(plain_segment).collect::<Vec<_>>().join("/");
        if let Some(uri) = with_path(req.uri(), &path) {
            *req.uri_mut() = uri;
        }
    }
    Ok(endpoint.call(req).await?.into_response())
}

fn plain_segment(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    let decoded = percent_decode_str(segment).decode_utf8().ok();
    decoded.and_then(|text| TenantId::parse(&text)).map_or_else(|| NO_ID.to_owned(), |plain| plain.to_string())
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let path_and_query = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether a value is a host, with or without a port, or empty (RFC 9112, 3.2).
fn is_host(value: &HeaderValue) -> bool {
    value.is_empty() || Authority::try_from(value.as_bytes()).is_ok_and(|authority| !authority.as_str().contains('@'))
}

/// Checks that every parser reads this as the same request (RFC 9112, 3.2 and 6.1; RFC 9113, 8.3.1), or returns what is to be changed. HTTP/1.0
/// has no Host; those of its clients that send one may not send two. In HTTP/2 `:authority` stands for it.
fn check_sound(req: &Request) -> Result<(), &'static str> {
    let mut hosts = req.headers().get_all(header::HOST).iter();
    let (host, is_one) = (hosts.next(), hosts.next().is_none());
    let authority = req.uri().authority().filter(|_| req.version() >= Version::HTTP_2);
    let is_named = match (host, authority) {
        (Some(host), Some(authority)) => host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()),
        (Some(_), None) | (None, Some(_)) => true,
        (None, None) => req.version() < Version::HTTP_11,
    };
    if !(is_named && is_one) {
        return Err("A request has exactly one Host.");
    }
    if host.is_some_and(|host| !is_host(host)) {
        return Err("The header Host must be a host, with or without a port.");
    }
    let mut encodings = req.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = encodings.next().is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !(is_plain && encodings.next().is_none()) {
        return Err("The header Transfer-Encoding must be chunked, or absent.");
    }
    Ok(())
}

/// Adds what every response has: the date, and that no cache keeps it and no client guesses its type.
fn add_common_headers(headers: &mut HeaderMap) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(date) = SystemClock.now().http_date().and_then(|date| HeaderValue::from_str(&date).ok()) {
        headers.insert(header::DATE, date);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_no_id_has_becomes_one_that_no_route_has() {
        for (segment, plain) in
            [("a%2Eb", "a.b"), ("%7a", "z"), ("%ff", NO_ID), ("a%2Fb", NO_ID), ("%00", NO_ID), ("%", NO_ID), ("", ""), ("a~", "a~")]
        {
            assert_eq!(plain_segment(segment), plain, "{segment}");
        }
    }

    #[test]
    fn a_path_with_the_secret_of_a_link_is_not_shown_however_it_is_written() {
        let shown = |path: &'static str| shown_path(&Request::builder().uri(Uri::from_static(path)).finish());
        for path in [
            "/handover/secret",
            "/%68andover/secret",
            "/handover%2fsecret",
            "/handover/secret/csr?a=b",
            "/handover/%ff",
            "//handover/secret",
            "/handover//secret",
            "/./handover/secret",
            "/api/v4/handover/secret",
            "/Handover/secret",
            "/handovers/secret",
        ] {
            assert_eq!(shown(path), "/handover/~", "{path}");
        }
        for path in
            ["/handover", "/handover/", "/health/live", "/api/v4/zones/z/custom_csrs/i/handover/j", "/api/v4/zones/handover/custom_csrs"]
        {
            assert_eq!(shown(path), path);
        }
    }

    #[test]
    fn a_path_is_replaced_and_the_query_kept() {
        let uri: Uri = "/a/%7a?b=%20".parse().unwrap();
        assert_eq!(with_path(&uri, "/a/z").unwrap().to_string(), "/a/z?b=%20");
    }
}
