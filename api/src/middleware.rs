//! What surrounds every route.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use percent_encoding::percent_decode_str;
use poem::{
    Body, Endpoint, IntoResponse, Request, Response,
    http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery},
};
use shared::ids::TenantId;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

/// Names a request in its response and in every line of the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The largest body that is looked at.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// A larger body is read to its end, up to here, so that its sender reads the answer instead of a closed connection.
const DRAIN_LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Stands in a request whose body was larger than [`BODY_LIMIT_BYTES`].
#[derive(Debug, Clone, Copy)]
pub struct BodyTooLarge;

/// The ID of a request: the client's own, or a new one.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// The whole path, with plain segments.
#[derive(Debug, Clone)]
pub struct PlainPath(pub String);

/// Stands for a path segment that can be no ID of ours: no route and no ID has it.
const NO_ID: &str = "~";

/// Gives every request an ID, a span that carries it through the log, and a last line.
pub async fn with_request_id<E: Endpoint>(endpoint: Arc<E>, mut req: Request) -> poem::Result<Response> {
    let id = req.header(REQUEST_ID).and_then(TenantId::parse).map_or_else(|| Uuid::now_v7().to_string(), |id| id.to_string());
    req.extensions_mut().insert(RequestId(id.clone()));
    // Of the highest level: at --log-level warn the lines that are left have the ID too.
    let span = tracing::error_span!("request", request_id = %id);
    async move {
        let (method, path, started) = (req.method().clone(), req.uri().path().to_owned(), Instant::now());
        let mut response = endpoint.get_response(req).await;
        let status = response.status().as_u16();
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::info!(%method, path, status, micros, "answered");
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        Ok(response)
    }
    .instrument(span)
    .await
}

/// Decodes percent-encoded path segments, so that routes and handlers meet plain ones; one that decodes to something that no
/// ID has, as `%ff` and `%2F` do, becomes [`NO_ID`].
pub async fn with_plain_path<E: Endpoint>(endpoint: Arc<E>, mut req: Request) -> poem::Result<Response> {
    let mut path = req.uri().path().to_owned();
    if path.contains('%') {
        path = path.split('/').map(plain_segment).collect::<Vec<_>>().join("/");
        if let Some(uri) = with_path(req.uri(), &path) {
            *req.uri_mut() = uri;
        }
    }
    req.extensions_mut().insert(PlainPath(path));
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

/// Reads the body, at most [`BODY_LIMIT_BYTES`] of it into memory.
pub async fn with_bounded_body<E: Endpoint>(endpoint: Arc<E>, mut req: Request) -> poem::Result<Response> {
    let body = req.take_body();
    // As most requests have it: no timer, no reading.
    if body.is_empty() {
        return Ok(endpoint.call(req).await?.into_response());
    }
    match tokio::time::timeout(BODY_TIME, read(body)).await {
        Ok(Ok(Some(bytes))) => req.set_body(bytes),
        Ok(Ok(None)) => {
            req.extensions_mut().insert(BodyTooLarge);
        }
        // Cut off, or too slow: what is missing is for the validator to say.
        Ok(Err(_)) | Err(_) => {}
    }
    Ok(endpoint.call(req).await?.into_response())
}

/// The body; none where it is too large.
async fn read(body: Body) -> Result<Option<Vec<u8>>, std::io::Error> {
    let mut chunks = body.into_bytes_stream();
    let mut bytes = Vec::new();
    let mut seen = 0;
    while let Some(chunk) = chunks.try_next().await? {
        seen += chunk.len();
        if seen <= BODY_LIMIT_BYTES {
            bytes.extend_from_slice(&chunk);
        } else if seen > DRAIN_LIMIT_BYTES {
            break;
        }
    }
    Ok((seen <= BODY_LIMIT_BYTES).then_some(bytes))
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
    fn a_path_is_replaced_and_the_query_kept() {
        let uri: Uri = "/a/%7a?b=%20".parse().unwrap();
        assert_eq!(with_path(&uri, "/a/z").unwrap().to_string(), "/a/z?b=%20");
    }
}
