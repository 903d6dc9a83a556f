//! JSON that keeps the order of its members and refuses repeated ones, which `serde_json::Value` swallows.
//!
//! Numbers are not converted: `1e999` is JSON (RFC 8259, section 6) though no `f64`, and `serde_json` refuses it.
//! So the grammar is checked first, without converting anything, and the visitor reads a copy in which every number is whole: a short one
//! that was, or else `-1`.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The most characters of a repeated member's name that an error shows.
const SHOWN_CHARS: usize = 64;

/// A JSON value. Numbers other than small whole ones have no value here: no body needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// A whole number from 0 to 999,999,999, which may be written as `5.0`.
    Whole(u32),
    /// `true` or `false`.
    Bool(bool),
    /// Another number.
    Other,
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object. Its members keep their order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a body; a byte order mark before it is ignored (RFC 8259, section 8.1). Returns `None` if it is not JSON, nests deeper than 127 levels, has text after its end, or repeats a member anywhere.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let body = without_mark(body);
        // Checked first: serde does not check the bytes of a string that it ignores.
        let text = std::str::from_utf8(body).ok()?;
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        Self::parse_text(text).ok()
    }

    /// Parses text that has the grammar of JSON. The places in an error are those in the text.
    pub(super) fn parse_text(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(&with_whole_numbers(text))
    }
}

/// A body without the byte order mark that some editors write before it.
pub(super) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Replaces every number of valid JSON by `-1`, except for whole ones of few digits. Outside strings, only numbers begin with a
/// digit or a minus.
fn with_whole_numbers(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut characters = json.chars().peekable();
    while let Some(c) = characters.next() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c == '-' || c.is_ascii_digit() {
            let mut number = String::from(c);
            while let Some(c) = characters.next_if(|c| matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-')) {
                number.push(c);
            }
            let whole = whole(&number).unwrap_or("-1");
            text.push_str(whole);
            // What follows keeps its place: an error names it.
            text.extend(std::iter::repeat_n(' ', number.len().saturating_sub(whole.len())));
            continue;
        } else {
            in_string = c == '"';
        }
        text.push(c);
    }
    text
}

/// The digits of a whole number, or `None` if it is too long.
fn whole(number: &str) -> Option<&str> {
    let (digits, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_whole = digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) && fraction.bytes().all(|b| b == b'0');
    is_whole.then_some(digits)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(u32::try_from(number).map_or(Json::Other, Json::Whole))
    }

    // The `-1` that stands for every other number.
    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let (mut object, mut seen) = (Vec::new(), HashSet::new());
        while let Some((key, value)) = members.next_entry::<String, Json>()? {
            if !seen.insert(key.clone()) {
                let shown: String = key.chars().take(SHOWN_CHARS).collect();
                return Err(A::Error::custom(format_args!("the member {shown:?} comes twice")));
            }
            object.push((key, value));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_or_repeats_a_member_anywhere_is_refused() {
        let deep = "[".repeat(100_000);
        let bad: &[&[u8]] = &[
            b"",
            b"{",
            b"{} x",
            b"{'a':1}",
            b"\xff",
            b"{\"a\":\"\xff\"}",
            br#"{"a":1,"a":1}"#,
            br#"{"x":[{"a":1,"\u0061":2}]}"#,
            br#"{"a":"\ud800"}"#,
            deep.as_bytes(),
            b"NaN",
            b"[1e]",
            b"[01]",
            b"[-]",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            b"{}\xef\xbb\xbf",
            br#"{"\udc00":1}"#,
            br#"{"x":["\ud800\u0041"]}"#,
        ];
        for body in bad {
            assert_eq!(Json::parse(body), None, "{:?}", String::from_utf8_lossy(&body[..body.len().min(40)]));
        }
        assert_eq!(Json::parse(b"\xef\xbb\xbf{}"), Some(Json::Object(Vec::new())));
        assert_eq!(
            Json::parse(br#" {"b":null,"a":[1.5,true,"x"]} "#),
            Some(Json::Object(vec![
                ("b".into(), Json::Null),
                ("a".into(), Json::Array(vec![Json::Other, Json::Bool(true), Json::String("x".into())]))
            ]))
        );
    }

    #[test]
    fn a_number_of_any_size_is_json() {
        for (number, whole) in [("0", 0), ("5", 5), ("5.0", 5), ("65536", 65536), ("999999999", 999_999_999)] {
            assert_eq!(Json::parse(number.as_bytes()), Some(Json::Whole(whole)), "{number}");
        }
        for number in
            ["1e999", "-1e999", "1.5", "-5", "5e0", "1000000000", "1E+400", "123456789012345678901234567890", "1e-999", "-0", "0.1"]
        {
            assert_eq!(Json::parse(number.as_bytes()), Some(Json::Other), "{number}");
            assert_eq!(Json::parse(format!("[{number} ]").as_bytes()), Some(Json::Array(vec![Json::Other])), "{number}");
        }
    }

    #[test]
    fn what_looks_like_a_number_in_a_string_stays() {
        let body = r#"{"a1":"-1e9\\","b\"2":["3\"4",5e5,"\\\"6"],"c":-0.5E-7}"#;
        let array = vec![Json::String("3\"4".into()), Json::Other, Json::String("\\\"6".into())];
        let members = vec![("a1".into(), Json::String("-1e9\\".into())), ("b\"2".into(), Json::Array(array)), ("c".into(), Json::Other)];
        assert_eq!(Json::parse(body.as_bytes()), Some(Json::Object(members)));
    }

    #[test]
    fn nesting_ends_at_its_bound_in_arrays_and_objects_alike() {
        let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for nested in [&arrays as &dyn Fn(usize) -> String, &objects] {
            assert!(Json::parse(nested(127).as_bytes()).is_some());
            assert_eq!(Json::parse(nested(128).as_bytes()), None);
            assert_eq!(Json::parse(nested(100_000).as_bytes()), None);
        }
    }

    #[test]
    fn a_member_named_like_serde_jsons_own_marker_is_a_member() {
        let name = "$serde_json::private::RawValue";
        let body = format!(r#"{{"{name}":"{{"}}"#);
        assert_eq!(Json::parse(body.as_bytes()), Some(Json::Object(vec![(name.into(), Json::String("{".into()))])));
    }
}
