//! A request body that documents a schema and hands the handler the bytes: the validator reports every fault, not the first.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use futures::TryStreamExt;
use poem::{
    Request, RequestBody,
    http::{HeaderMap, Method, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, Registry},
    types::Type,
};
use shared::{
    codes::ErrorCode,
    issue::{Input, Issue},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    error::ApiError,
    middleware::{BODY_LIMIT_BYTES, UnreadBody},
};

/// How long a body may take to arrive.
pub(super) const BODY_TIME: Duration = Duration::from_secs(30);
/// How long it may still take once the process stops.
const STOPPING_TIME: Duration = Duration::from_secs(5);

/// What the bodies of all requests share.
pub struct Intake {
    /// Room for them, in bytes.
    pub bytes: Arc<Semaphore>,
    /// Whether the process is about to end: what has not arrived then has little time left.
    pub stopping: watch::Receiver<bool>,
}

/// The bytes of a body that the document describes as `T`.
pub struct Body<T> {
    bytes: Vec<u8>,
    /// Whether all of it arrived.
    is_whole: bool,
    is_json: bool,
    is_encoded: bool,
    schema: PhantomData<T>,
    /// Its share of [`Intake::bytes`].
    _room: Room,
}

/// A body as it arrived.
pub struct Received {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether all of it arrived.
    pub is_whole: bool,
    /// Its share of [`Intake::bytes`].
    pub room: Room,
}

/// A part of [`Intake::bytes`], which is given back when it is dropped.
pub struct Room(OwnedSemaphorePermit);

impl Room {
    /// For a body of this length.
    fn take(bytes: &Arc<Semaphore>, length: usize) -> Result<Self, ApiError> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Arc::clone(bytes).try_acquire_many_owned(length).map(Self).map_err(|_| no_room())
    }

    /// Makes it large enough for this length.
    fn grow(&mut self, length: usize) -> Result<(), ApiError> {
        let missing = length.saturating_sub(self.0.num_permits());
        if missing > 0 {
            let Self(more) = Self::take(self.0.semaphore(), missing)?;
            self.0.merge(more);
        }
        Ok(())
    }
}

fn no_room() -> ApiError {
    Issue::new(ErrorCode::NotReady).because("too many request bodies are being read").into()
}

/// The body, or `None` if it was cut off.
async fn read(body: poem::Body, room: &mut Room, is_upload: bool) -> Result<Option<Vec<u8>>, ApiError> {
    let mut chunks = body.into_bytes_stream();
    let mut bytes = Vec::new();
    loop {
        match chunks.try_next().await {
            Ok(None) => return Ok(Some(bytes)),
            Ok(Some(chunk)) if bytes.len() + chunk.len() <= BODY_LIMIT_BYTES => {
                room.grow(bytes.len() + chunk.len())?;
                bytes.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => return Err(too_large(is_upload).into()),
            Err(_) => return Ok(None),
        }
    }
}

/// 1467; that of an upload says what may be left out.
#[must_use]
pub fn too_large(is_upload: bool) -> Issue {
    let issue = Issue::new(ErrorCode::BodyTooLarge);
    if is_upload {
        issue.hinting("The text around the PEM blocks can be left out, and so can all but the leaf and its intermediates.")
    } else {
        issue
    }
}

/// Whether a request brings certificates: an upload of the API, or the form of a hand-over link.
#[must_use]
pub fn is_upload(req: &Request) -> bool {
    let mut last_parts = req.original_uri().path().rsplit('/').take(2);
    matches!(*req.method(), Method::POST | Method::PATCH) && last_parts.any(|part| matches!(part, "custom_certificates" | "handover"))
}

/// The length of the body, if the request says it.
#[must_use]
pub fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl<T> Body<T> {
    /// The bytes.
    ///
    /// # Errors
    ///
    /// 1468 if it is compressed; 1400 if the content type is not JSON, or a part of the body is missing.
    pub fn json(&self) -> Result<&[u8], Issue> {
        if self.is_encoded {
            return Err(Issue::of(ErrorCode::BodyEncoded, Input::Header("Content-Encoding")));
        }
        let refused = |hint: &str| Err(Issue::new(ErrorCode::BodyUndecodable).hinting(hint));
        match (self.is_whole, self.is_json) {
            (true, true) => Ok(&self.bytes),
            (true, false) => refused("The header Content-Type must be application/json."),
            (false, _) => refused("The body did not arrive whole within 30 seconds."),
        }
    }
}

/// 1468 for a body that has another encoding than its own.
///
/// # Errors
///
/// That.
pub fn check_not_encoded(headers: &HeaderMap) -> Result<(), Issue> {
    if is_encoded(headers) { Err(Issue::of(ErrorCode::BodyEncoded, Input::Header("Content-Encoding"))) } else { Ok(()) }
}

/// Whether a body has another encoding than its own (RFC 9110, 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let mut encodings = values.flat_map(|value| value.split(',')).map(str::trim);
    // `is_empty` of poem-openapi's `Type`, which texts have too, is another thing.
    encodings.any(|encoding| !matches!(encoding, "") && !encoding.eq_ignore_ascii_case("identity"))
}

/// `application/json`, with or without parameters (RFC 9110, 8.3.1).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

impl<'a, T: Type> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType { content_type: "application/json", schema: T::schema_ref() }];
        Some(MetaRequest { description: None, content, required: true })
    }

    /// Reads the body. Operations name it after the access: nothing is read of a client whose token was not accepted.
    async fn from_request(req: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let Received { bytes, is_whole, room } = receive(req, body).await?;
        let (is_json, is_encoded) = (req.content_type().is_some_and(is_json), is_encoded(req.headers()));
        Ok(Self { bytes, is_whole, is_json, is_encoded, schema: PhantomData, _room: room })
    }
}

/// Reads a body.
///
/// A body of known length reserves all of its room before its first byte is read, so that none is read in vain. Any other reserves it as it
/// arrives.
///
/// # Errors
///
/// 1467 if it is too large, 1471 if there is no room for it.
pub async fn receive(req: &Request, body: &mut RequestBody) -> Result<Received, ApiError> {
    let intake = req.data::<Arc<Intake>>().ok_or(ErrorCode::Internal)?;
    let declared = declared_length(req.headers()).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let mut room = Room::take(&intake.bytes, declared.min(BODY_LIMIT_BYTES))?;
    let body = body.take().map_err(|_| ErrorCode::Internal)?;
    let mut stopping = intake.stopping.clone();
    let stopped = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(STOPPING_TIME).await;
    };
    let read = tokio::select! {
        read = tokio::time::timeout(BODY_TIME, read(body, &mut room, is_upload(req))) => read,
        () = stopped => Ok(Ok(None)),
    };
    let (bytes, is_whole) = match read {
        Ok(Ok(Some(bytes))) => {
            if let Some(unread) = req.extensions().get::<UnreadBody>() {
                unread.set(false);
            }
            (bytes, true)
        }
        Ok(Err(error)) => return Err(error),
        // Cut off, or too slow.
        Ok(Ok(None)) | Err(_) => (Vec::new(), false),
    };
    Ok(Received { bytes, is_whole, room })
}

/// A body that may be left out.
pub struct OptionalBody<T>(Body<T>);

impl<T> OptionalBody<T> {
    /// The bytes, or `None` if nothing was sent, whatever the content type. A body that was cut off does not count as left out.
    ///
    /// # Errors
    ///
    /// 1400 if the content type is not JSON, or a part of the body is missing.
    pub fn json(&self) -> Result<Option<&[u8]>, Issue> {
        if self.0.is_whole && self.0.bytes.is_empty() { Ok(None) } else { self.0.json().map(Some) }
    }
}

impl<'a, T: Type> ApiExtractor<'a> for OptionalBody<T> {
    const TYPES: &'static [ApiExtractorType] = Body::<T>::TYPES;
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        Body::<T>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Body::<T>::request_meta().map(|meta| MetaRequest { required: false, ..meta })
    }

    async fn from_request(req: &'a Request, body: &mut RequestBody, options: ExtractParamOptions<()>) -> poem::Result<Self> {
        Body::from_request(req, body, options).await.map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_encoded_if_any_encoding_is_not_its_own() {
        let encoded = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, poem::http::HeaderValue::from_static(value));
            }
            is_encoded(&headers)
        };
        for plain in [&[][..], &[""], &["identity"], &["Identity , identity"], &["identity", ""], &[","]] {
            assert!(!encoded(plain), "{plain:?}");
        }
        for other in [&["gzip"][..], &["identity, br"], &["identity", "deflate"], &["x"]] {
            assert!(encoded(other), "{other:?}");
        }
    }
}
