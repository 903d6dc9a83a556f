//! `dry_run`: whether a request is only checked.

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};
use shared::issue::Issue;

use crate::http::{
    flag,
    query::{inline, schema},
};

/// The query parameter.
pub struct DryRun(Result<bool, Issue>);

impl DryRun {
    /// Whether it is set.
    ///
    /// # Errors
    ///
    /// 1464 if it is neither `true` nor `false`.
    pub fn is_set(self) -> Result<bool, Issue> {
        self.0
    }
}

impl<'a> ApiExtractor<'a> for DryRun {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        let description = "Run every check, store nothing, and answer 200.";
        Some(inline(MetaSchema { default: Some(false.into()), ..schema("boolean", description) }))
    }

    async fn from_request(req: &'a Request, _: &mut RequestBody, options: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self(flag::parse(req.uri().query().unwrap_or_default(), options.name)))
    }
}
