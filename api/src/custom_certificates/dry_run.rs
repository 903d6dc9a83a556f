//! `dry_run`: whether a request is only checked.

use std::collections::BTreeSet;

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};
use shared::issue::Issue;

use crate::http::query::{inline, out_of_range, schema};

/// The end of the message that refuses a value.
pub const MUST: &str = "be one of true, false";

/// The query parameter: `true`, or else `false` or absent. An empty value is not the same as an absent one, unlike elsewhere, and several
/// that differ are a fault: what is stored by mistake cannot be taken back.
pub struct DryRun(Result<bool, Issue>);

impl DryRun {
    /// Whether it is set.
    ///
    /// # Errors
    ///
    /// 1464 if it is another word, or empty, or both words.
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
        Ok(Self(read(req.uri().query().unwrap_or_default(), options.name)))
    }
}

/// Parses such a parameter.
///
/// # Errors
///
/// 1464, as [`DryRun::is_set`].
pub fn read(query: &str, name: &'static str) -> Result<bool, Issue> {
    let values: BTreeSet<_> = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).map(|(_, value)| value).collect();
    match values.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] {
        [] | ["false"] => Ok(false),
        ["true"] => Ok(true),
        _ => Err(out_of_range(name, &values.into_iter().collect::<Vec<_>>().join(", "), MUST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_absent_true_or_false_and_nothing_else() {
        for (query, expected) in [("", false), ("dry_run=false", false), ("dry_run=true", true), ("dry_run=true&dry_run=true", true)] {
            assert_eq!(read(query, "dry_run"), Ok(expected), "{query}");
        }
        let bad =
            ["", "=", "=1", "=0", "=yes", "=TRUE", "=False", "=%20true", "=true&dry_run=false", "=false&dry_run=true", "=false&dry_run="];
        for rest in bad {
            assert!(read(&format!("x=1&dry_run{rest}"), "dry_run").is_err(), "{rest}");
        }
    }
}
