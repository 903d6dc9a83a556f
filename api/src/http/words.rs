//! Query parameters that are one of a few words.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use serde_json::Value;

use super::query::{Parameter, schema};

/// A query parameter that is one of a few words.
pub trait Words: Copy + Send + 'static {
    /// The name of its schema in the document.
    const SCHEMA: &'static str;
    /// The words, with what they stand for.
    const WORDS: &'static [(&'static str, Self)];
    /// The word that counts if the request has none.
    const DEFAULT: &'static str;
    /// What the document says of the parameter.
    const DESCRIPTION: &'static str;

    /// The parameter that another word was probably meant for.
    #[must_use]
    fn meant_for(_: &str) -> Option<&'static str> {
        None
    }
}

impl<T: Words> Parameter for T {
    type Value = Self;

    fn schema() -> MetaSchemaRef {
        let described = MetaSchema { default: Some(Self::DEFAULT.into()), description: Some(Self::DESCRIPTION), ..MetaSchema::ANY };
        MetaSchemaRef::Reference(Self::SCHEMA.to_owned()).merge(described)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn register(registry: &mut Registry) {
        let enum_items = Self::WORDS.iter().map(|(word, _)| Value::from(*word)).collect();
        let named = MetaSchema { enum_items, ..schema("string", Self::DESCRIPTION) };
        registry.schemas.insert(Self::SCHEMA.to_owned(), named);
    }

    fn must() -> String {
        one_of(Self::WORDS.iter().map(|(word, _)| *word))
    }

    fn meant_for(text: &str) -> Option<&'static str> {
        <Self as Words>::meant_for(text)
    }
}

/// Declares an enum of the document as a query parameter that is read as another one.
macro_rules! enum_parameter {
    ($schema:ty, $value:ty) => {
        impl $crate::http::query::Parameter for $schema {
            type Value = $value;

            fn schema() -> ::poem_openapi::registry::MetaSchemaRef {
                <Self as ::poem_openapi::types::Type>::schema_ref()
            }

            fn parse(text: &str) -> Option<$value> {
                <$value>::parse(text)
            }

            fn must() -> String {
                $crate::http::words::one_of(<$value>::ALL.iter().map(|value| value.as_str()))
            }

            fn register(registry: &mut ::poem_openapi::registry::Registry) {
                <Self as ::poem_openapi::types::Type>::register(registry);
            }
        }
    };
}

pub(crate) use enum_parameter;

/// What [`Parameter::must`] says of words.
pub fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    format!("be one of {}", words.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Answer {
        Yes,
        No,
    }

    impl Words for Answer {
        const SCHEMA: &'static str = "Answer";
        const WORDS: &'static [(&'static str, Self)] = &[("yes", Self::Yes), ("no", Self::No)];
        const DEFAULT: &'static str = "no";
        const DESCRIPTION: &'static str = "Yes or no.";
    }

    #[test]
    fn a_word_is_read_documented_and_named_from_one_declaration() {
        assert_eq!(["yes", "no", "YES", "maybe"].map(Answer::parse), [Some(Answer::Yes), Some(Answer::No), None, None]);
        assert_eq!(Answer::must(), "be one of yes, no");
        let MetaSchemaRef::Inline(schema) = <Answer as Parameter>::schema() else { panic!("it has no name") };
        assert_eq!(schema.all_of[0], MetaSchemaRef::Reference("Answer".to_owned()));
        let mut registry = Registry::new();
        <Answer as Parameter>::register(&mut registry);
        assert_eq!(registry.schemas["Answer"].enum_items, ["yes", "no"]);
        assert_eq!((schema.default, schema.description), (Some("no".into()), Some("Yes or no.")));
    }
}
