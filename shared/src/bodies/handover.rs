//! The request body that makes a hand-over link.

use std::{ops::RangeInclusive, time::Duration};

use super::{json::Json, unknown};
use crate::{
    codes::ErrorCode,
    issue::{Issue, Warning},
};

/// How long a link may last, in seconds: an hour to thirty days.
pub const EXPIRES_IN: RangeInclusive<u32> = 3_600..=2_592_000;
/// How long it lasts by default, in seconds: a week.
pub const DEFAULT_EXPIRES_IN: u32 = 604_800;
/// The most characters of a note.
pub const NOTE_MAX_CHARS: usize = 500;

/// What the body of a hand-over link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoverRequest {
    /// How long it lasts.
    pub expires_in: Duration,
    /// The tenant's note to whoever opens it.
    pub note: Option<String>,
}

impl HandoverRequest {
    /// Parses a body. Members that are absent or `null` have their defaults, and so does everything if there is no body. The warnings are about
    /// unknown members.
    ///
    /// # Errors
    ///
    /// 1400, 1462, 1495 and 1496.
    pub fn parse(body: Option<&[u8]>) -> Result<(Self, Vec<Warning>), Vec<Issue>> {
        let mut request = Self { expires_in: Duration::from_secs(DEFAULT_EXPIRES_IN.into()), note: None };
        let Some(body) = body else { return Ok((request, Vec::new())) };
        let Some(Json::Object(members)) = Json::parse(body) else { return Err(vec![Issue::new(ErrorCode::BodyUndecodable)]) };
        let (mut issues, mut warnings) = (Vec::new(), Vec::new());
        for (name, value) in members {
            match (name.as_str(), value) {
                (_, Json::Null) => {}
                ("expires_in", Json::Whole(seconds)) if EXPIRES_IN.contains(&seconds) => {
                    request.expires_in = Duration::from_secs(seconds.into());
                }
                // A number that is negative or too large for `u64` is out of range too.
                ("expires_in", Json::Whole(_) | Json::Other) => issues.push(Issue::at(ErrorCode::HandoverLifetimeInvalid, "/expires_in")),
                ("note", Json::String(text)) => match note(text) {
                    Ok(note) => request.note = note,
                    Err(issue) => issues.push(issue),
                },
                (member @ ("expires_in" | "note"), _) => issues.push(Issue::at(ErrorCode::BodyUndecodable, format!("/{member}"))),
                (_, value) => unknown::warn(&name, &value, &mut warnings),
            }
        }
        issues.sort_by_key(|issue| issue.code);
        if issues.is_empty() { Ok((request, warnings)) } else { Err(unknown::beside(issues, &warnings)) }
    }
}

/// A note, or `None` if it is blank.
fn note(text: String) -> Result<Option<String>, Issue> {
    if text.chars().all(char::is_whitespace) {
        return Ok(None);
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(Issue::at(ErrorCode::FieldHasControls, "/note").because("note has control characters"));
    }
    if text.chars().count() > NOTE_MAX_CHARS {
        return Err(Issue::at(ErrorCode::HandoverNoteTooLong, "/note"));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> HandoverRequest {
        HandoverRequest::parse(Some(body.as_bytes())).unwrap().0
    }

    #[test]
    fn everything_has_a_default() {
        let week = HandoverRequest { expires_in: Duration::from_hours(168), note: None };
        assert_eq!(HandoverRequest::parse(None).unwrap().0, week);
        assert_eq!(parsed("{}"), week);
        assert_eq!(parsed(r#"{"expires_in": null, "note": " "}"#), week);
    }

    #[test]
    fn what_is_given_counts_up_to_its_bounds() {
        for seconds in [3_600, 2_592_000] {
            assert_eq!(parsed(&format!(r#"{{"expires_in": {seconds}}}"#)).expires_in, Duration::from_secs(seconds));
        }
        assert_eq!(parsed(r#"{"note": "Dear IT,\nplease <b>sign</b>."}"#).note.as_deref(), Some("Dear IT,\nplease <b>sign</b>."));
        let longest = "é".repeat(NOTE_MAX_CHARS);
        assert_eq!(parsed(&format!(r#"{{"note": "{longest}"}}"#)).note, Some(longest));
    }

    #[test]
    fn every_fault_is_named_where_it_is() {
        let faults = |body: &str| {
            let issues = HandoverRequest::parse(Some(body.as_bytes())).unwrap_err();
            issues.into_iter().map(|issue| (issue.code.number(), issue.pointer.unwrap_or_default())).collect::<Vec<_>>()
        };
        for bad in ["3599", "2592001", "0", "-3600", "1e9", "3600.5"] {
            assert_eq!(faults(&format!(r#"{{"expires_in": {bad}}}"#)), [(1495, "/expires_in".into())], "{bad}");
        }
        assert_eq!(faults(r#"{"expires_in": "3600"}"#), [(1400, "/expires_in".into())]);
        assert_eq!(faults(r#"{"note": 5, "expires_in": 1}"#), [(1400, "/note".into()), (1495, "/expires_in".into())]);
        assert_eq!(faults(r#"{"note": "a\u0007"}"#), [(1462, "/note".into())]);
        assert_eq!(faults(&format!(r#"{{"note": "{}"}}"#, "x".repeat(501))), [(1496, "/note".into())]);
        assert_eq!(faults("[]"), [(1400, String::new())]);
    }

    #[test]
    fn an_unknown_member_is_a_warning() {
        let (_, warnings) = HandoverRequest::parse(Some(br#"{"expiresIn": 3600}"#)).unwrap();
        assert_eq!(warnings.iter().map(|warning| warning.pointer.as_str()).collect::<Vec<_>>(), ["/expiresIn"]);
    }
}
