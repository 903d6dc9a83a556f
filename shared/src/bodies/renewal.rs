//! The request body that sets a renewal policy.

use serde::Deserialize;

use super::{
    json::{Json, without_mark},
    unknown,
};
use crate::{
    codes::ErrorCode,
    issue::{Issue, Warning},
    renewal::{Fraction, RenewalKey},
};

/// How a zone's certificates are to be renewed.
#[derive(Debug, Clone, PartialEq)]
pub struct RenewalPolicyBody {
    /// With which key.
    pub key: RenewalKey,
    /// When.
    pub at: Fraction,
    /// Warnings about unknown members.
    pub warnings: Vec<Warning>,
}

/// A number, which [`Json`] does not keep.
#[derive(Deserialize)]
struct Point {
    at: f64,
}

impl RenewalPolicyBody {
    /// Reads a body. If `at` is absent or `null`, it is a third of the lifetime.
    ///
    /// # Errors
    ///
    /// 1400, 1510 and 1511.
    pub fn parse(body: &[u8]) -> Result<Self, Vec<Issue>> {
        let Some(Json::Object(members)) = Json::parse(body) else { return Err(vec![Issue::new(ErrorCode::BodyUndecodable)]) };
        let (mut key, mut at, mut issues, mut warnings) = (None, Fraction::default(), Vec::new(), Vec::new());
        let mut names_key = false;
        for (name, value) in members {
            match (name.as_str(), value) {
                ("key" | "at", Json::Null) => {}
                ("key", Json::String(word)) => {
                    names_key = true;
                    key = RenewalKey::parse_any_case(&word);
                    if key.is_none() {
                        issues.push(Issue::at(ErrorCode::RenewalKeyInvalid, "/key"));
                    }
                }
                ("at", Json::Whole(_) | Json::Other) => match point(body) {
                    Some(point) => at = point,
                    None => issues.push(Issue::at(ErrorCode::RenewalPointInvalid, "/at")),
                },
                (member @ ("key" | "at"), _) => {
                    names_key |= member == "key";
                    issues.push(Issue::at(ErrorCode::BodyUndecodable, format!("/{member}")));
                }
                (_, value) => unknown::warn(&name, &value, &mut warnings),
            }
        }
        if !names_key {
            issues.push(Issue::at(ErrorCode::RenewalKeyInvalid, "/key"));
        }
        issues.sort_by_key(|issue| issue.code);
        match key {
            Some(key) if issues.is_empty() => Ok(Self { key, at, warnings }),
            _ => Err(unknown::beside(issues, &warnings)),
        }
    }
}

fn point(body: &[u8]) -> Option<Fraction> {
    serde_json::from_slice::<Point>(without_mark(body)).ok().and_then(|point| Fraction::new(point.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(body: &str) -> Vec<(u16, String)> {
        let issues = RenewalPolicyBody::parse(body.as_bytes()).unwrap_err();
        issues.into_iter().map(|issue| (issue.code.number(), issue.pointer.unwrap_or_default())).collect()
    }

    #[test]
    fn a_policy_has_a_key_and_by_default_a_third() {
        for (body, key, at) in [
            (r#"{"key":"new"}"#, RenewalKey::New, 1.0 / 3.0),
            (r#"{"key":"REUSE","at":null}"#, RenewalKey::Reuse, 1.0 / 3.0),
            (r#"{"at":0.25,"key":"reuse"}"#, RenewalKey::Reuse, 0.25),
            (r#"{"at":0.9999999999999999,"key":"reuse"}"#, RenewalKey::Reuse, 1.0 - f64::EPSILON / 2.0),
            (r#"{"at":9.9e-1,"key":"reuse","x":1e999}"#, RenewalKey::Reuse, 0.99),
        ] {
            let policy = RenewalPolicyBody::parse(body.as_bytes()).unwrap();
            assert_eq!((policy.key, policy.at), (key, Fraction::new(at).unwrap()), "{body}");
        }
        let marked = RenewalPolicyBody::parse("\u{feff}{\"key\":\"new\",\"at\":0.5,\"att\":0.1}".as_bytes()).unwrap();
        assert_eq!((marked.at.number(), marked.warnings[0].pointer.as_str()), (0.5, "/att"));
    }

    #[test]
    fn every_fault_is_named_where_it_is() {
        let at = |code, pointer: &str| (code, pointer.to_owned());
        for (body, expected) in [
            ("{}", vec![at(1510, "/key")]),
            (r#"{"key":null,"at":0}"#, vec![at(1510, "/key"), at(1511, "/at")]),
            (r#"{"key":"both","at":1}"#, vec![at(1510, "/key"), at(1511, "/at")]),
            (r#"{"key":"new","at":-0.5}"#, vec![at(1511, "/at")]),
            (r#"{"key":"new","at":1e-999}"#, vec![at(1511, "/at")]),
            (r#"{"key":"new","at":1e999}"#, vec![at(1511, "/at")]),
            (r#"{"key":"new","at":1.0000001}"#, vec![at(1511, "/at")]),
            (r#"{"key":"new","at":"0.5"}"#, vec![at(1400, "/at")]),
            (r#"{"key":5}"#, vec![at(1400, "/key")]),
            ("[]", vec![at(1400, "")]),
        ] {
            assert_eq!(faults(body), expected, "{body}");
        }
    }
}
