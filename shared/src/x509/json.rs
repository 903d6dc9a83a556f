//! JSON that keeps the order of its members and refuses repeated ones, which `serde_json::Value` swallows.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// A JSON value. What a number or a boolean says is of no use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true`, `false` or a number.
    Other,
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object, in the order in which it was written.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole body. None where it is not JSON, nests deeper than 128, has text after its end, or repeats a member anywhere.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
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

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
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
                return Err(A::Error::custom("a repeated member"));
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
        ];
        for body in bad {
            assert_eq!(Json::parse(body), None, "{:?}", String::from_utf8_lossy(&body[..body.len().min(40)]));
        }
        assert_eq!(
            Json::parse(br#" {"b":null,"a":[1.5,true,"x"]} "#),
            Some(Json::Object(vec![
                ("b".into(), Json::Null),
                ("a".into(), Json::Array(vec![Json::Other, Json::Other, Json::String("x".into())]))
            ]))
        );
    }
}
