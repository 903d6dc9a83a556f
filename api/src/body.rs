//! A request body that documents a schema and hands the handler the bytes: the validator reports every fault, not the first.

use std::marker::PhantomData;

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, Registry},
    types::Type,
};
use shared::error::ErrorCode;

/// The bytes of a body that the document describes as `T`.
pub struct Body<T> {
    bytes: Vec<u8>,
    is_json: bool,
    schema: PhantomData<T>,
}

impl<T> Body<T> {
    /// The bytes.
    ///
    /// # Errors
    ///
    /// 1400 where the content type is not JSON.
    pub fn json(&self) -> Result<&[u8], ErrorCode> {
        if self.is_json { Ok(&self.bytes) } else { Err(ErrorCode::BodyUndecodable) }
    }
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

    async fn from_request(req: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let bytes = body.take()?.into_vec().await?;
        Ok(Self { bytes, is_json: req.content_type().is_some_and(is_json), schema: PhantomData })
    }
}
