//! The request body that changes a custom CSR's name and description, and nothing else.

use super::{
    create::{DESCRIPTION, Draft, NAME, take_text, text_field},
    json::Json,
    unchanging::{self, OF_CUSTOM_CSRS},
    unknown,
};
use crate::{
    codes::ErrorCode,
    issue::{Issue, Warning},
};

/// A change of a member: `None` keeps it, `Some(None)` clears it.
pub type Change = Option<Option<String>>;

/// Changes of a custom CSR's name and description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edit {
    /// The tenant's own name for it.
    pub name: Change,
    /// The tenant's own description.
    pub description: Change,
}

impl Edit {
    /// Parses a body. An absent member keeps the value, and a `null` or blank one clears it.
    ///
    /// The members of a custom CSR that never change, and unknown ones, are ignored with a warning. The warnings are sorted by code.
    ///
    /// # Errors
    ///
    /// 1400, 1461 and 1462.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<Warning>), Vec<Issue>> {
        let Some(Json::Object(members)) = Json::parse(body) else { return Err(vec![Issue::new(ErrorCode::BodyUndecodable)]) };
        let (mut edit, mut draft, mut warnings) = (Self::default(), Draft::default(), Vec::new());
        for (name, value) in members {
            match text_field(&name) {
                Some(field @ (NAME | DESCRIPTION)) => {
                    take_text(field, value, &mut draft);
                    let change = Some(draft.texts[field].take());
                    if field == NAME { edit.name = change } else { edit.description = change }
                }
                _ => unchanging::warn(OF_CUSTOM_CSRS, &name, &value, &mut warnings),
            }
        }
        // A stable sort: faults of one code stay in the body's order.
        draft.issues.sort_by_key(|issue| issue.code);
        warnings.sort_by_key(|warning| warning.code);
        if draft.issues.is_empty() { Ok((edit, warnings)) } else { Err(unknown::beside(draft.issues, &warnings)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_members_keep_and_null_and_blank_ones_clear() {
        let edit = |body: &str| Edit::parse(body.as_bytes()).unwrap().0;
        assert_eq!(edit("{}"), Edit::default());
        assert_eq!(edit(r#"{"name":null,"description":" "}"#), Edit { name: Some(None), description: Some(None) });
        assert_eq!(edit(r#"{"name":" shop ","x":1}"#), Edit { name: Some(Some(" shop ".into())), description: None });
    }

    #[test]
    fn members_that_never_change_and_unknown_ones_are_warned_of() {
        let (edit, warnings) =
            Edit::parse(br#"{"nmae":"x","name":"a","country":"US","sans":[],"key_type":5,"id":1,"x":null,"state":null}"#).unwrap();
        assert_eq!(edit.name, Some(Some("a".into())));
        let warnings: Vec<_> = warnings.iter().map(|warning| (warning.code.number(), warning.pointer.as_str())).collect();
        assert_eq!(warnings, [(2005, "/country"), (2005, "/sans"), (2005, "/key_type"), (2005, "/id"), (2012, "/nmae")]);
    }

    #[test]
    fn every_fault_is_named() {
        let body = format!(r#"{{"description":"a\u0000","name":"{}"}}"#, "x".repeat(256));
        let codes: Vec<_> =
            Edit::parse(body.as_bytes()).unwrap_err().into_iter().map(|issue| (issue.code.number(), issue.pointer)).collect();
        assert_eq!(codes, [(1461, Some("/name".into())), (1462, Some("/description".into()))]);
        for (body, pointer) in [(r#"{"name":5}"#, Some("/name".to_owned())), ("[]", None)] {
            assert_eq!(Edit::parse(body.as_bytes()).unwrap_err()[0].pointer, pointer);
        }
    }
}
