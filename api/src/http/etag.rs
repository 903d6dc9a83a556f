//! `ETag` and `If-None-Match` (RFC 9110, 8.8.3 and 13.1.2): a client that has an answer already is told so in a few bytes.

use std::marker::PhantomData;

use aws_lc_rs::digest::{SHA256, digest};
use poem::{
    Body, IntoResponse, Response,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse,
    registry::{MetaHeader, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
};
use shared::{codes::ErrorCode, printable::hex};

use super::{error::ApiError, header::HeaderParameter};

/// How many bytes of the hash of an answer its tag has.
const TAG_BYTES: usize = 16;

/// What a client has already: entity tags, or `*` for anything. A malformed header names nothing.
#[derive(Debug, Clone, Default)]
pub struct IfNoneMatch(Vec<String>);

impl IfNoneMatch {
    /// Whether it names this tag, by the weak comparison.
    fn names(&self, tag: &str) -> bool {
        self.0.iter().any(|named| named == "*" || named == tag)
    }
}

/// The tags of a list, with their quotes and without `W/`, up to the first thing that is none. `*` is one only if it stands alone.
fn opaque_tags(list: &str) -> Vec<&str> {
    if list.trim() == "*" {
        return vec!["*"];
    }
    let mut tags = Vec::new();
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let Some(length) = tag.strip_prefix('"').and_then(|opaque| opaque.find('"')) else { return tags };
        let (tag, after) = tag.split_at(length + 2);
        tags.push(tag);
        rest = after;
    }
}

impl HeaderParameter for IfNoneMatch {
    fn schema() -> MetaSchema {
        let description = "The `ETag` of an answer that the client has (RFC 9110): 304 without a body if it is still the same.";
        MetaSchema {
            description: Some(description),
            example: Some("\"6c1fdd0b94f7ad2e5a3c08e1b72f4d96\"".into()),
            ..MetaSchema::new("string")
        }
    }

    fn read(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        Self(values.flat_map(opaque_tags).map(str::to_owned).collect())
    }
}

/// The answer `R` with its tag, or 304 if the client has it already.
pub struct Tagged<R>(Response, PhantomData<R>);

impl<R: IntoResponse> Tagged<R> {
    /// Tags an answer with the hash of its body, so that no change goes unnoticed, whatever it comes from.
    ///
    /// # Errors
    ///
    /// 1500 if the body cannot be read.
    pub async fn unless(known: &IfNoneMatch, answer: R) -> Result<Self, ApiError> {
        let (mut parts, body) = answer.into_response().into_parts();
        let body = body.into_bytes().await.map_err(|_| ErrorCode::Internal)?;
        let tag = hex(&digest(&SHA256, &body).as_ref()[..TAG_BYTES]);
        let tag = format!("\"{tag}\"");
        let is_known = known.names(&tag);
        parts.headers.insert(header::ETAG, HeaderValue::try_from(tag).map_err(|_| ErrorCode::Internal)?);
        if is_known {
            parts.status = StatusCode::NOT_MODIFIED;
            parts.headers.remove(header::CONTENT_TYPE);
        }
        let body = if is_known { Body::empty() } else { Body::from(body) };
        Ok(Self(Response::from_parts(parts, body), PhantomData))
    }
}

impl<R: Send> IntoResponse for Tagged<R> {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<R: ApiResponse> ApiResponse for Tagged<R> {
    fn meta() -> MetaResponses {
        let tag = || MetaHeader {
            name: "ETAG".to_owned(),
            description: Some("Names this answer: another tag, another answer.".to_owned()),
            required: true,
            deprecated: false,
            schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
        };
        let MetaResponses { mut responses } = R::meta();
        for response in &mut responses {
            response.headers.push(tag());
        }
        responses.push(MetaResponse {
            description: "`If-None-Match` names this answer: the client has it already.",
            status: Some(StatusCode::NOT_MODIFIED.as_u16()),
            status_range: None,
            content: Vec::new(),
            headers: vec![tag()],
        });
        MetaResponses { responses }
    }

    fn register(registry: &mut Registry) {
        R::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(values: &[&'static str], tag: &str) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(value));
        }
        IfNoneMatch::read(&headers).names(tag)
    }

    #[test]
    fn a_tag_is_found_in_lists_and_compared_weakly_and_a_star_is_any() {
        for list in [
            &["\"a\""][..],
            &["W/\"a\""],
            &["\"b\",\"a\""],
            &["\"b\" , W/\"a\""],
            &["\"b,\", \"a\""],
            &["*"],
            &[" * "],
            &["\"b\"", "\"a\""],
            &[",, \"a\","],
        ] {
            assert!(names(list, "\"a\""), "{list:?}");
        }
        for list in [&[][..], &[""], &["\"b\""], &["a"], &["\"a"], &["w/\"a\""], &["\"b\", *"], &["\",\"a\",\""], &["\"A\""], &["\"*\""]] {
            assert!(!names(list, "\"a\""), "{list:?}");
        }
    }
}
