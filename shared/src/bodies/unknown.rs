//! Members that a request does not have: each is ignored, with a warning, since most are misspelled.

use super::json::Json;
use crate::{
    codes::WarningCode,
    issue::{Issue, Warning},
    printable::excerpt,
};

/// The most warnings of one request.
const WARNINGS_MAX: usize = 10;
/// The most characters of a name that a warning repeats: no member that exists has a longer name.
const NAME_MAX_CHARS: usize = 64;

/// Warns that a member was ignored. There is no warning if it is `null`, which is the same as absent, or after ten warnings.
pub(super) fn warn(name: &str, value: &Json, warnings: &mut Vec<Warning>) {
    let count = warnings.iter().filter(|warning| warning.code == WarningCode::UnknownMember).count();
    if *value == Json::Null || count >= WARNINGS_MAX {
        return;
    }
    let shown = excerpt(name, NAME_MAX_CHARS);
    // RFC 6901, section 3.
    let pointer = format!("/{}", shown.replace('~', "~0").replace('/', "~1"));
    warnings.push(Warning::at(WarningCode::UnknownMember, pointer).because(shown));
}

/// The issues of a body that is refused, the first of them with the warnings about unknown members.
pub(super) fn beside(issues: Vec<Issue>, warnings: &[Warning]) -> Vec<Issue> {
    let mut issues = issues.into_iter();
    let first = issues.next().map(|first| first.beside(warnings));
    first.into_iter().chain(issues).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for name in names {
            warn(name, &Json::Other, &mut warnings);
        }
        warnings
    }

    #[test]
    fn a_name_is_repeated_cut_to_its_bound_and_harmless_and_points_to_its_member() {
        for (name, pointer, shown) in [
            ("comon_name", "/comon_name", "comon_name"),
            ("", "/", ""),
            ("a/b~c", "/a~1b~0c", "a/b~c"),
            (":reason", "/:reason", ":reason"),
            ("größe", "/größe", "größe"),
            ("\u{1b}[31m\n\u{202e}", "/\\u001b[31m\\u000a\\u202e", "\\u001b[31m\\u000a\\u202e"),
        ] {
            let [warning] = &warnings([name])[..] else { panic!("{name:?}") };
            assert_eq!(warning.pointer, pointer);
            assert!(warning.message().contains(&format!("‘{shown}’")), "{}", warning.message());
        }
        let [warning] = &warnings([&*"é".repeat(60_000)])[..] else { panic!() };
        assert!(warning.message().chars().count() < 200 && warning.pointer.chars().count() < 100, "{}", warning.message());
    }

    #[test]
    fn ten_are_warned_of_and_those_that_are_null_are_not() {
        let names: Vec<String> = (0..30).map(|number| format!("x{number}")).collect();
        let pointers: Vec<_> = warnings(names.iter().map(String::as_str)).into_iter().map(|warning| warning.pointer).collect();
        assert_eq!(pointers, (0..10).map(|number| format!("/x{number}")).collect::<Vec<_>>());
        let mut none = Vec::new();
        warn("x", &Json::Null, &mut none);
        assert_eq!(none, []);
    }
}
