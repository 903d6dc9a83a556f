//! IDs in the path, as the router extracted them.

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};
use shared::{codes::ErrorCode, issue::Issue};

/// An ID that stands in paths.
pub trait PathId: Sized + Send {
    /// The error of a request whose path has something else in its place.
    const INVALID: ErrorCode;

    /// What an ID looks like.
    const FORM: &'static str;

    /// The ID of this text, if it is one.
    fn parse(text: &str) -> Option<Self>;

    /// What the document says of it.
    fn schema() -> MetaSchema;
}

/// [`PathId::INVALID`], with what an ID looks like.
#[must_use]
pub fn invalid<I: PathId>() -> Issue {
    Issue::new(I::INVALID).hinting(I::FORM)
}

/// An ID in the path. Whether it is valid is known when the operation asks for it: a request without access does not learn that.
///
/// The name is that of poem-openapi's own extractor: its macro knows path parameters by it.
pub struct Path<I>(Option<I>);

impl<I: PathId + Copy> Path<I> {
    /// The ID.
    ///
    /// # Errors
    ///
    /// [`PathId::INVALID`] if it is none.
    pub fn id(&self) -> Result<I, Issue> {
        self.0.ok_or_else(invalid::<I>)
    }
}

impl<'a, I: PathId> ApiExtractor<'a> for Path<I> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    const PARAM_IS_REQUIRED: bool = true;
    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Path)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(I::schema())))
    }

    async fn from_request(req: &'a Request, _: &mut RequestBody, options: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self(req.raw_path_param(options.name).and_then(I::parse)))
    }
}
