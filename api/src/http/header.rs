//! Request headers that operations read: how the document shows each, and how it is read.

use poem::{Request, RequestBody, http::HeaderMap};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};

/// A header of a request. One that is malformed is a value too: what that means is for the operation to say.
pub trait HeaderParameter: Send {
    /// How the document shows it. Its description becomes the parameter's.
    fn schema() -> MetaSchema;

    /// What the headers say.
    fn read(headers: &HeaderMap) -> Self;
}

/// The elements of a list in a header (RFC 9110, 5.6.1). A comma in a quoted string is a part of it.
pub fn elements(list: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(move |c| {
        let is_end = c == ',' && !is_quoted;
        is_quoted ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && is_quoted && !is_escaped;
        is_end
    })
}

/// What a request says in a header.
pub struct Header<H>(pub H);

impl<'a, H: HeaderParameter> ApiExtractor<'a> for Header<H> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(MetaSchemaRef::Inline(Box::new(H::schema())))
    }

    async fn from_request(req: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self(H::read(req.headers())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_part_a_list_but_not_those_in_quoted_strings() {
        for (list, expected) in [
            ("a, b", &["a", " b"][..]),
            ("", &[""]),
            (",a,", &["", "a", ""]),
            (r#"x="a, b", c"#, &[r#"x="a, b""#, " c"]),
            (r#"x="\"a,\\", b"#, &[r#"x="\"a,\\""#, " b"]),
            (r#"x\"a, b", c"#, &[r#"x\"a, b""#, " c"]),
            (r#"x="a, b"#, &[r#"x="a, b"#]),
        ] {
            assert_eq!(elements(list).collect::<Vec<_>>(), expected, "{list}");
        }
    }
}
