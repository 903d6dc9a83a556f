//! Query parameters that are `true` or `false`, of requests that store or destroy something.
//!
//! An empty value is not the same as an absent one, unlike elsewhere, and several that differ are a fault: what is stored or destroyed by
//! mistake cannot be taken back.

use std::collections::BTreeSet;

use shared::issue::Issue;

use super::query::out_of_range;

/// The end of the message that refuses a value.
pub const MUST: &str = "be one of true, false";

/// Parses a flag: `true`, or else `false` or absent.
///
/// # Errors
///
/// 1464 if it is another word, or empty, or both words.
pub fn parse(query: &str, name: &'static str) -> Result<bool, Issue> {
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
            assert_eq!(parse(query, "dry_run"), Ok(expected), "{query}");
        }
        let bad =
            ["", "=", "=1", "=0", "=yes", "=TRUE", "=False", "=%20true", "=true&dry_run=false", "=false&dry_run=true", "=false&dry_run="];
        for rest in bad {
            assert!(parse(&format!("x=1&dry_run{rest}"), "dry_run").is_err(), "{rest}");
        }
    }
}
