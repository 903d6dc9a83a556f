//! The one envelope that every response has.

use std::borrow::Cow;

use poem_openapi::{
    Object,
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde::Serialize;
use shared::{
    codes::WarningCode,
    issue::{Input, Issue, Warning},
};

use super::types::Always;

/// Which part of the request is meant: it has one of these members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Object, Serialize)]
pub struct Source {
    /// A JSON pointer (RFC 6901) into the request body.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The name of a query parameter.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// The name of a header.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

impl Source {
    /// A member of the body.
    #[must_use]
    pub fn pointer(pointer: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..Self::default() }
    }

    /// The part of the request that has the fault, unless it is the request as a whole.
    #[must_use]
    pub fn of(issue: &Issue) -> Option<Self> {
        match issue.input {
            Some(Input::Parameter(name)) => Some(Self { parameter: Some(name.to_owned()), ..Self::default() }),
            Some(Input::Header(name)) => Some(Self { header: Some(name.to_owned()), ..Self::default() }),
            None => issue.pointer.clone().map(Self::pointer),
        }
    }
}

/// One error or one warning.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Message {
    /// The number; `/docs/codes` of a running service says what each means, and so does `x-error-codes` for programs.
    pub code: u16,
    /// What is wrong and what to do.
    pub message: String,
    /// Which part of the request is meant; absent if it is the request as a whole.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

impl From<&Issue> for Message {
    fn from(issue: &Issue) -> Self {
        Self { code: issue.code.number(), message: issue.message(), source: Source::of(issue) }
    }
}

impl From<&Warning> for Message {
    fn from(warning: &Warning) -> Self {
        Self { code: warning.code.number(), message: warning.message(), source: Some(Source::pointer(warning.pointer.clone())) }
    }
}

impl Message {
    /// A hint, on this part of the request if on any.
    #[must_use]
    pub const fn hint(message: String, source: Option<Source>) -> Self {
        Self { code: WarningCode::Hint.number(), message, source }
    }
}

/// What every error response looks like.
#[derive(Debug, Clone, Object)]
pub struct ErrorResponse {
    /// Always false.
    pub success: Always<false>,
    /// Everything that is wrong, in the order of the codes.
    pub errors: Vec<Message>,
    /// Hints (2100), at most 20: what the texts of the errors do not say. Each has the source of its error. Members that the request does
    /// not have (2012) stand before them.
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
            pub success: $crate::http::types::Always<true>,
            /// Always empty.
            #[oai(validator(max_items = 0))]
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
                Self { success: $crate::http::types::Always, errors: Vec::new(), messages, result $(, $extra)* }
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
