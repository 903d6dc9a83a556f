//! Query parameters: how the document shows each, and how it is read.

use std::marker::PhantomData;

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef, Registry},
};
use shared::{
    codes::ErrorCode,
    issue::{Input, Issue},
    printable::escape,
};

use super::error::ApiError;

/// Characters that a text to search for may have.
pub const SEARCH_MAX_CHARS: usize = 255;

/// The most characters of a value that a hint repeats.
const SHOWN_CHARS: usize = 64;

/// A query parameter.
pub trait Parameter: Send {
    /// What it is read as.
    type Value: Send;

    /// How the document shows it. Its description becomes the parameter's.
    fn schema() -> MetaSchemaRef;

    /// The value that a text stands for, if it does.
    fn parse(text: &str) -> Option<Self::Value>;

    /// What a value must do: the end of the message that refuses another one.
    fn must() -> String;

    /// The parameter that a value which is out of range here was probably meant for.
    #[must_use]
    fn meant_for(_: &str) -> Option<&'static str> {
        None
    }

    /// Registers the schemas that [`Parameter::schema`] names.
    fn register(_: &mut Registry) {}
}

/// A query parameter of a request: its first value, or `None` if there is none or an empty one. Whether it is in range is known
/// when an operation asks for it: it reports other faults first.
pub struct Query<P: Parameter>(Result<Option<P::Value>, Issue>, PhantomData<P>);

impl<P: Parameter> Query<P> {
    /// Its value.
    ///
    /// # Errors
    ///
    /// 1464 if it is out of range.
    pub fn value(self) -> Result<Option<P::Value>, Issue> {
        self.0
    }
}

impl<'a, P: Parameter> ApiExtractor<'a> for Query<P> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        P::register(registry);
    }

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(P::schema())
    }

    async fn from_request(req: &'a Request, _: &mut RequestBody, options: ExtractParamOptions<()>) -> poem::Result<Self> {
        let query = req.uri().query().unwrap_or_default();
        Ok(Self(read::<P>(query, options.name), PhantomData))
    }
}

fn read<P: Parameter>(query: &str, name: &'static str) -> Result<Option<P::Value>, Issue> {
    let value = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    P::parse(&value).map(Some).ok_or_else(|| {
        let issue = out_of_range(name, &value, &P::must());
        match (P::meant_for(&value), &issue.hint) {
            (Some(other), Some(hint)) => Issue { hint: Some(format!("{hint} Send it as the parameter {other}.")), ..issue },
            _ => issue,
        }
    })
}

/// 1464 for a query parameter: what it was and what it `must` do.
#[must_use]
pub fn out_of_range(name: &'static str, value: &str, must: &str) -> Issue {
    let end = value.char_indices().nth(SHOWN_CHARS).map_or(value.len(), |(at, _)| at);
    let (shown, rest) = (escape(&value[..end]), if end < value.len() { "…" } else { "" });
    let issue = Issue::of(ErrorCode::ParameterOutOfRange, Input::Parameter(name));
    issue.because(format!("query parameter {name} must {must}")).hinting(format!("{name} must {must}, and is ‘{shown}{rest}’."))
}

/// Gathers the query parameters that are out of range, so that all of them are reported together.
#[derive(Default)]
pub struct Faults(Vec<Issue>);

impl Faults {
    /// The value of a parameter, or `None` if it has none in range.
    pub fn take<P: Parameter>(&mut self, parameter: Query<P>) -> Option<P::Value> {
        parameter.value().unwrap_or_else(|issue| {
            self.0.push(issue);
            None
        })
    }

    /// What was made of the values.
    ///
    /// # Errors
    ///
    /// 1464 for every parameter that is out of range.
    pub fn none_or<T>(self, value: T) -> Result<T, ApiError> {
        if self.0.is_empty() { Ok(value) } else { Err(ApiError::new(self.0)) }
    }
}

/// A schema of this type, for a parameter with this description.
#[must_use]
pub fn schema(ty: &'static str, description: &'static str) -> MetaSchema {
    MetaSchema { description: Some(description), ..MetaSchema::new(ty) }
}

/// A schema that has no name.
#[must_use]
pub fn inline(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Yes;

    impl Parameter for Yes {
        type Value = ();

        fn schema() -> MetaSchemaRef {
            inline(schema("string", "Yes."))
        }

        fn parse(text: &str) -> Option<()> {
            (text == "yes").then_some(())
        }

        fn must() -> String {
            "be yes".to_owned()
        }
    }

    #[test]
    fn the_first_value_counts_and_an_empty_one_is_none() {
        assert_eq!(read::<Yes>("unknown=1", "a"), Ok(None));
        assert_eq!(read::<Yes>("a=&a=yes", "a"), Ok(None));
        assert_eq!(read::<Yes>("b=no&a=y%65s&a=no", "a"), Ok(Some(())));
        assert!(read::<Yes>("a=no&a=yes", "a").is_err());
    }

    #[test]
    fn every_parameter_out_of_range_is_named() {
        let mut faults = Faults::default();
        for (query, name) in [("a=no", "a"), ("a=yes", "a"), ("b=no", "b")] {
            faults.take(Query::<Yes>(read::<Yes>(query, name), PhantomData));
        }
        let messages: Vec<String> = faults.0.iter().map(Issue::message).collect();
        assert_eq!(messages.len(), 2);
        assert!(messages[0].contains("query parameter a must be yes") && messages[1].contains("query parameter b must be yes"));
    }
}
