//! What was expected of a body that is answered 1400, and where.

use serde::de::IgnoredAny;

use super::{
    handover::EXPIRES_IN,
    json::{Json, without_mark},
};
use crate::{
    codes::ErrorCode,
    custom_certificate::{BundleMethod, CertificateType},
    issue::Issue,
    renewal::RenewalKey,
};

/// The issues of a body, with a hint on each 1400: where broken JSON breaks, or the type that a member must have.
#[must_use]
pub fn explained(body: &[u8], mut issues: Vec<Issue>) -> Vec<Issue> {
    for issue in issues.iter_mut().filter(|issue| issue.code == ErrorCode::BodyUndecodable) {
        let hint = match &issue.pointer {
            Some(pointer) => member(pointer, body),
            None => whole(body),
        };
        issue.hint = Some(hint);
    }
    issues
}

/// What is wrong with a body that is no JSON object.
fn whole(body: &[u8]) -> String {
    let body = without_mark(body);
    if body.trim_ascii().is_empty() {
        return "The body is empty: send a JSON object.".to_owned();
    }
    if body.trim_ascii_start().starts_with(b"-----BEGIN ") {
        return "The body is PEM: send a JSON object, with the PEM as a string in it whose lines end with \\n.".to_owned();
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => {
            let before = String::from_utf8_lossy(&body[..error.valid_up_to()]);
            let (line, start) = (before.matches('\n').count() + 1, before.rfind('\n').map_or(0, |at| at + 1));
            return format!("Line {line}, column {}: a byte is not UTF-8. Send JSON in UTF-8.", before[start..].chars().count() + 1);
        }
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return broken(text, &error);
    }
    match Json::parse_text(text) {
        Err(error) => broken(text, &error),
        Ok(json) => format!("The body is {}: send a JSON object.", kind(&json)),
    }
}

/// Where JSON breaks, and why.
fn broken(json: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let why = text.split(" at line ").next().unwrap_or_default();
    // The error counts bytes, and editors count characters.
    let line = json.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let column = line[..line.ceil_char_boundary(error.column())].chars().count();
    let why = match why {
        _ if why.starts_with("EOF") => "the JSON ends before it is complete".to_owned(),
        _ if why.starts_with("control character") => {
            "a string has a line break or another control character: write it as \\n or \\u….".to_owned()
        }
        "trailing characters" => "something follows the end of the JSON".to_owned(),
        "expected value" => "a JSON value is expected".to_owned(),
        "trailing comma" => "a comma is the last thing before the end of an array or object".to_owned(),
        "key must be a string" => "the name of a member is expected, in double quotes".to_owned(),
        "expected ident" => "true, false or null is expected".to_owned(),
        "recursion limit exceeded" => "the JSON nests deeper than 127 levels".to_owned(),
        _ => why.strip_prefix("expected ").map_or_else(|| why.to_owned(), |what| format!("{what} is expected")),
    };
    format!("Line {}, column {column}: {}.", error.line(), why.trim_end_matches('.'))
}

/// The type that a member must have, and the one that it has.
fn member(pointer: &str, body: &[u8]) -> String {
    let is = Json::parse(body).and_then(|json| at(&json, pointer).map(kind));
    let must = match pointer {
        "/sans" | "/events" | "/key_types" => "an array of strings".to_owned(),
        "/enabled" => "true or false".to_owned(),
        "/at" => "a number over 0 and under 1".to_owned(),
        "/expires_in" => format!("a whole number from {} to {}", EXPIRES_IN.start(), EXPIRES_IN.end()),
        "/key" => one_of(RenewalKey::ALL.iter().map(|word| word.as_str())),
        "/priority" => format!("a whole number from 0 to {}", u16::MAX),
        "/bundle_method" => one_of(BundleMethod::ALL.iter().map(|word| word.as_str())),
        "/type" => one_of(CertificateType::ALL.iter().map(|word| word.as_str())),
        _ => "a string".to_owned(),
    };
    match is {
        Some(is) if !must.starts_with(is) && !must.starts_with("one of") => format!("{pointer} must be {must}, and is {is}."),
        _ => format!("{pointer} must be {must}."),
    }
}

fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    format!("one of {}", words.collect::<Vec<_>>().join(", "))
}

/// The value at a pointer to a member, or to an element of one.
fn at<'a>(json: &'a Json, pointer: &str) -> Option<&'a Json> {
    pointer.split('/').skip(1).try_fold(json, |json, step| match json {
        Json::Object(members) => members.iter().find(|(name, _)| name == step).map(|(_, value)| value),
        Json::Array(items) => items.get(step.parse::<usize>().ok()?),
        Json::Null | Json::Whole(_) | Json::Bool(_) | Json::Other | Json::String(_) => None,
    })
}

const fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Whole(_) | Json::Other => "a number",
        Json::Bool(_) => "true or false",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(body: impl AsRef<[u8]>, pointer: Option<&str>) -> String {
        let issue =
            pointer.map_or_else(|| Issue::new(ErrorCode::BodyUndecodable), |pointer| Issue::at(ErrorCode::BodyUndecodable, pointer));
        explained(body.as_ref(), vec![issue]).remove(0).hint.unwrap()
    }

    #[test]
    fn broken_json_is_told_where_and_why() {
        for (body, expected) in [
            (&b""[..], "The body is empty: send a JSON object."),
            (b" \n", "The body is empty: send a JSON object."),
            (b"{country: US}", "Line 1, column 2: the name of a member is expected, in double quotes."),
            (b"{\"a\":1\n", "Line 2, column 0: the JSON ends before it is complete."),
            (b"{\n  \"a\": 1\n  \"b\": 2}", "Line 3, column 3: `,` or `}` is expected."),
            (b"{\"a\":1,}", "Line 1, column 8: the name of a member is expected, in double quotes."),
            (b"{\"a\":[1,]}", "Line 1, column 9: a JSON value is expected."),
            (b"{} x", "Line 1, column 4: something follows the end of the JSON."),
            (b"{\"a\":\"x\ny\"}", "Line 1, column 7: a string has a line break or another control character: write it as \\n or \\u…."),
            (b"{\"a\":123.25,\"a\":2}", "Line 1, column 18: the member \"a\" comes twice."),
            (b"{\n\"a\":\"\xff\"}", "Line 2, column 6: a byte is not UTF-8. Send JSON in UTF-8."),
            ("{\"ü\":\"§\",}".as_bytes(), "Line 1, column 10: the name of a member is expected, in double quotes."),
            ("{é".as_bytes(), "Line 1, column 2: the name of a member is expected, in double quotes."),
            (b"{\n\"\xc3\xbc\":\"\xff\"}", "Line 2, column 6: a byte is not UTF-8. Send JSON in UTF-8."),
            (b"[]", "The body is an array: send a JSON object."),
            (b"\"x\"", "The body is a string: send a JSON object."),
            (b"null", "The body is null: send a JSON object."),
        ] {
            assert_eq!(hint(body, None), expected, "{}", String::from_utf8_lossy(body));
        }
        assert!(hint("-----BEGIN CERTIFICATE-----\n", None).starts_with("The body is PEM"));
        assert!(hint("[".repeat(1_000) + &"]".repeat(1_000), None).ends_with("deeper than 127 levels."));
        assert!(hint(format!("{{\"{0}\":1,\"{0}\":2}}", "x".repeat(1_000)), None).len() < 200);
    }

    #[test]
    fn a_member_is_told_its_type() {
        let body = r#"{"sans":["a",null],"country":5,"state":true,"locality":["x"],"priority":1.5,"type":"x","bundle_method":7}"#;
        for (pointer, expected) in [
            ("/sans/1", "/sans/1 must be a string, and is null."),
            ("/country", "/country must be a string, and is a number."),
            ("/state", "/state must be a string, and is true or false."),
            ("/locality", "/locality must be a string, and is an array."),
            ("/priority", "/priority must be a whole number from 0 to 65535, and is a number."),
            ("/type", "/type must be one of sni_custom, legacy_custom."),
            ("/bundle_method", "/bundle_method must be one of ubiquitous, optimal, force."),
        ] {
            assert_eq!(hint(body, Some(pointer)), expected);
        }
        let body = r#"{"expires_in":"3600","key":5}"#;
        assert_eq!(hint(body, Some("/expires_in")), "/expires_in must be a whole number from 3600 to 2592000, and is a string.");
        assert_eq!(hint(body, Some("/key")), "/key must be one of reuse, new.");
        assert_eq!(hint(r#"{"sans":"a.com"}"#, Some("/sans")), "/sans must be an array of strings, and is a string.");
        assert_eq!(hint(r#"{"sans":{}}"#, Some("/sans")), "/sans must be an array of strings, and is an object.");
    }
}
