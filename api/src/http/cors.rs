//! CORS: which other sites' pages may ask the API from a browser (Fetch standard, 3.2).
//!
//! poem's own middleware refuses every request of another origin, Swagger UI's too, which this service serves itself. Here the browser refuses.

use std::{collections::HashSet, sync::Arc};

use poem::{
    Endpoint, IntoResponse, Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};

/// What pages may ask with.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");

/// What pages may read beside the headers that need no leave. The official clients repeat what `x-should-retry` would forbid them if it
/// were not here.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "ETag, Idempotent-Replayed, Location, Preference-Applied, Retry-After, WWW-Authenticate, X-Request-Id, X-Should-Retry",
);

/// How long a browser remembers a preflight's answer, in seconds: two hours, the most that Chromium heeds.
const MAX_AGE_SECS: HeaderValue = HeaderValue::from_static("7200");

/// The origins whose pages may ask; without any, none may.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<HashSet<HeaderValue>>);

impl FromIterator<HeaderValue> for Origins {
    fn from_iter<I: IntoIterator<Item = HeaderValue>>(origins: I) -> Self {
        Self(Arc::new(origins.into_iter().collect()))
    }
}

/// Answers preflights of these origins, and lets their pages read every answer, errors too. A request of another origin is answered as ever, but
/// the browser keeps the answer from the page.
pub async fn with_cors<E: Endpoint>(endpoint: Arc<E>, req: Request, origins: Origins) -> poem::Result<Response> {
    if origins.0.is_empty() {
        return Ok(endpoint.call(req).await?.into_response());
    }
    let origin = req.headers().get(header::ORIGIN).filter(|origin| origins.0.contains(*origin)).cloned();
    let is_preflight = req.method() == Method::OPTIONS && req.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &origin {
        Some(_) if is_preflight => preflight(req.headers()),
        _ => endpoint.call(req).await?.into_response(),
    };
    // An answer to one origin is not that to another.
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        allow(response.headers_mut(), origin);
    }
    Ok(response)
}

/// Pages may send whatever headers they want: clients have some of their own, which mean nothing here. `*` would not do, since
/// `Authorization` is not in it.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = Response::from(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECS);
    response
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
}
