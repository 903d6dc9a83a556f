//! The one envelope that every response has.

use std::borrow::Cow;

use poem_openapi::{
    Object,
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde::Serialize;
use shared::issue::{Issue, Warning};

/// Which member of the request body is meant.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Source {
    /// A JSON pointer (RFC 6901) into the request body.
    pub pointer: String,
}

/// One error or one warning.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Message {
    /// The number; the table of codes says what it means.
    pub code: u16,
    /// What is wrong and what to do.
    pub message: String,
    /// Which member of the request body is meant; absent where it is the request as a whole.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

impl From<&Issue> for Message {
    fn from(issue: &Issue) -> Self {
        let source = issue.pointer.clone().map(|pointer| Source { pointer });
        Self { code: issue.code.number(), message: issue.message(), source }
    }
}

impl From<&Warning> for Message {
    fn from(warning: &Warning) -> Self {
        let source = Some(Source { pointer: warning.pointer.clone() });
        Self { code: warning.code.number(), message: warning.message(), source }
    }
}

/// What every error response looks like.
#[derive(Debug, Clone, Object)]
pub struct ErrorResponse {
    /// Always false.
    pub success: bool,
    /// Everything that is wrong, in the order of the codes.
    pub errors: Vec<Message>,
    /// Warnings.
    pub messages: Vec<Message>,
    /// Always null.
    pub result: Null,
}

/// Declares the envelope around one kind of result.
///
/// poem-openapi names a generic type by its parameters: clients would see the names change.
macro_rules! envelopes {
    ($($(#[$doc:meta])* $name:ident($result:ty) { $($(#[$extra_doc:meta])* $extra:ident: $extra_type:ty),* })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Object, Serialize)]
        pub struct $name {
            /// Always true.
            pub success: bool,
            /// Always empty.
            pub errors: Vec<Message>,
            /// Warnings.
            pub messages: Vec<Message>,
            /// The result.
            pub result: $result,
            $($(#[$extra_doc])* pub $extra: $extra_type,)*
        }

        impl $name {
            /// A success with these warnings.
            #[must_use]
            pub fn new(result: $result, messages: Vec<Message> $(, $extra: $extra_type)*) -> Self {
                Self { success: true, errors: Vec::new(), messages, result $(, $extra)* }
            }
        }
    )+ };
}

pub(crate) use envelopes;

/// The `null` of a response without a result.
#[derive(Debug, Clone, Copy)]
pub struct Null;

impl Type for Null {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "null".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema { nullable: true, ..MetaSchema::new("object") }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ToJSON for Null {
    fn to_json(&self) -> Option<serde_json::Value> {
        Some(serde_json::Value::Null)
    }
}

impl ParseFromJSON for Null {
    fn parse_from_json(_: Option<serde_json::Value>) -> ParseResult<Self> {
        Ok(Self)
    }
}
