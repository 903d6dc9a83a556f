//! ACME Renewal Information (ARI, RFC 9773): the question to an issuer about a certificate, which needs no account, and its answer.

use std::time::Duration;

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use url::Url;

use crate::{
    clock::Timestamp,
    outbound::{URL_MAX_CHARS, is_one_word},
    printable::hex,
};

/// The shortest and the longest time until csrd asks the issuer again, whatever the issuer says.
pub const ASK_AGAIN: (Duration, Duration) = (Duration::from_hours(6), Duration::from_hours(24 * 3));
/// The pause after the first error; each further error doubles it.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// An issuer's ACME directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AriDirectory {
    /// The issuer: its organization, its common name, or its key identifier in hexadecimal.
    pub issuer: String,
    /// Where the directory is.
    pub url: String,
}

/// What a leaf says of its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedBy {
    /// The issuer's organizations and common names.
    pub names: Vec<String>,
    /// The identifier of the key that signed (authorityKeyIdentifier).
    pub key_identifier: Vec<u8>,
    /// The serial number as in its DER.
    pub serial_number: Vec<u8>,
}

impl IssuedBy {
    /// Whether this is the issuer's directory.
    #[must_use]
    pub fn is_at(&self, directory: &AriDirectory) -> bool {
        let digits: String = directory.issuer.chars().filter(|c| *c != ':').collect();
        self.names.contains(&directory.issuer) || (!digits.is_empty() && digits.eq_ignore_ascii_case(&hex(&self.key_identifier)))
    }

    /// The unique identifier of the certificate at its issuer (RFC 9773, 4.1).
    #[must_use]
    pub fn certificate_id(&self) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&self.key_identifier), URL_SAFE_NO_PAD.encode(&self.serial_number))
    }
}

/// The `renewalInfo` of a directory.
///
/// # Errors
///
/// Why the directory has none: the end of a sentence that begins with "the directory".
pub fn renewal_info_url(directory: &[u8]) -> Result<String, &'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Directory {
        renewal_info: Option<String>,
    }
    let directory: Directory = serde_json::from_slice(directory).map_err(|_| "is not an ACME directory")?;
    directory.renewal_info.ok_or("has no renewalInfo")
}

/// When the issuer wants a certificate renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalInfo {
    /// The window: its start and its end.
    pub window: (Timestamp, Timestamp),
    /// The page with the issuer's reason.
    pub explanation_url: Option<String>,
}

impl RenewalInfo {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// What is wrong with it: the end of a sentence that begins with "the answer".
    pub fn parse(answer: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Window {
            start: String,
            end: String,
        }
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "suggestedWindow")]
            window: Window,
            #[serde(rename = "explanationURL")]
            explanation_url: Option<String>,
        }
        let Answer { window, explanation_url } = serde_json::from_slice(answer).map_err(|_| "is not a RenewalInfo object")?;
        let times = Timestamp::parse_rfc3339(&window.start).zip(Timestamp::parse_rfc3339(&window.end));
        let window = times.filter(|(start, end)| start < end).ok_or("has no window that begins before it ends")?;
        // Tenants see it as a link.
        let is_web = |url: &String| {
            url.chars().count() <= URL_MAX_CHARS
                && is_one_word(url)
                && Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "https" | "http"))
        };
        Ok(Self { window, explanation_url: explanation_url.filter(is_web) })
    }

    /// A random time within the window, as RFC 9773 asks for.
    #[must_use]
    pub fn moment(&self) -> Timestamp {
        let (start, end) = self.window;
        let mut octets = [0; 8];
        // Without random numbers it is the start: early rather than late.
        let chosen = rand::fill(&mut octets).map(|()| u64::from_le_bytes(octets)).unwrap_or_default();
        let length = end.micros().saturating_sub(start.micros()).max(1).unsigned_abs();
        start.plus(Duration::from_micros(chosen % length))
    }
}

/// When to ask again, by the answer's Retry-After: seconds, or a date.
#[must_use]
pub fn ask_again(retry_after: Option<&str>, now: Timestamp) -> Timestamp {
    let (shortest, longest) = ASK_AGAIN;
    let wanted = retry_after.map(str::trim).and_then(|text| {
        let seconds = text.parse().ok().map(Duration::from_secs);
        let until = || Timestamp::parse_http_date(text);
        seconds.or_else(|| Some(Duration::from_micros(until()?.micros().saturating_sub(now.micros()).max(0).unsigned_abs())))
    });
    now.plus(wanted.unwrap_or(shortest).clamp(shortest, longest))
}

/// When to ask again after this many errors in a row: after 1, 2, 4, … minutes, and at most 6 hours.
#[must_use]
pub fn ask_again_after_error(errors: u32, now: Timestamp) -> Timestamp {
    now.plus(FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(errors.saturating_sub(1))).min(ASK_AGAIN.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn issued() -> IssuedBy {
        let key_identifier =
            vec![0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c, 0xde, 0x01, 0xc8, 0xd4];
        IssuedBy { names: vec!["Acme Trust".into(), "R1".into()], key_identifier, serial_number: vec![0x00, 0x87, 0x65, 0x43, 0x21] }
    }

    #[test]
    fn a_certificate_is_known_as_in_the_example_of_the_rfc() {
        assert_eq!(issued().certificate_id(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    }

    #[test]
    fn a_directory_names_the_issuer_by_its_organization_its_common_name_or_its_key() {
        let at = |issuer: &str| issued().is_at(&AriDirectory { issuer: issuer.to_owned(), url: String::new() });
        for issuer in
            ["Acme Trust", "R1", "69885b6b87464041e1b37b847ba0ae2cde01c8d4", "69:88:5B:6B:87:46:40:41:E1:B3:7B:84:7B:A0:AE:2C:DE:01:C8:D4"]
        {
            assert!(at(issuer), "{issuer}");
        }
        for issuer in ["", "Acme", "acme trust", "R10", "69885b"] {
            assert!(!at(issuer), "{issuer}");
        }
    }

    #[test]
    fn an_answer_has_a_window_and_may_say_why() {
        let answer = br#"{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00+01:00"},"explanationURL":"https://acme.example/why","x":1}"#;
        let info = RenewalInfo::parse(answer).unwrap();
        assert_eq!(
            (info.window.0.rfc3339(), info.window.1.rfc3339()),
            ("2025-01-02T04:00:00.000000Z".into(), "2025-01-03T03:00:00.000000Z".into())
        );
        assert_eq!(info.explanation_url.as_deref(), Some("https://acme.example/why"));
        let moments: Vec<_> = (0..100).map(|_| info.moment()).collect();
        assert!(moments.iter().all(|moment| info.window.0 <= *moment && *moment < info.window.1));
        assert!(moments.iter().any(|moment| *moment != moments[0]));
        let script =
            br#"{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"},"explanationURL":"javascript:alert(1)"}"#;
        assert_eq!(RenewalInfo::parse(script).unwrap().explanation_url, None);
        let zero =
            br#"{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"},"explanationURL":"https://x.example/\u0000"}"#;
        assert_eq!(RenewalInfo::parse(zero).unwrap().explanation_url, None);
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"suggestedWindow":{}}"#,
            r#"{"suggestedWindow":{"start":"tomorrow","end":"2025-01-03T04:00:00Z"}}"#,
            r#"{"suggestedWindow":{"start":"2025-01-03T04:00:00Z","end":"2025-01-02T04:00:00Z"}}"#,
            r#"{"suggestedWindow":{"start":"2025-01-03T04:00:00Z","end":"2025-01-03T04:00:00Z"}}"#,
        ] {
            assert!(RenewalInfo::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_may_have_renewal_info() {
        assert_eq!(renewal_info_url(br#"{"newNonce":"x","renewalInfo":"https://a.b/ri"}"#), Ok("https://a.b/ri".to_owned()));
        for bad in [&b"{}"[..], b"", b"<html>", br#"{"renewalInfo":5}"#] {
            assert!(renewal_info_url(bad).is_err());
        }
    }

    #[test]
    fn the_next_time_is_what_the_issuer_says_within_bounds() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let after = |text: Option<&str>| ask_again(text, now);
        for (text, expected) in [
            (None, HOUR * 6),
            (Some("0"), HOUR * 6),
            (Some("21600"), HOUR * 6),
            (Some(" 43200 "), HOUR * 12),
            (Some("99999999999"), HOUR * 72),
            (Some("-1"), HOUR * 6),
            (Some("soon"), HOUR * 6),
            (Some("Wed, 15 Nov 2023 22:13:20 GMT"), HOUR * 24),
            (Some("Sun, 06 Nov 1994 08:49:37 GMT"), HOUR * 6),
        ] {
            assert_eq!(after(text), now.plus(expected), "{text:?}");
        }
        let pauses = [1, 2, 3, 9, 10, 1_000].map(|errors| ask_again_after_error(errors, now));
        assert_eq!(pauses, [1, 2, 4, 256, 360, 360].map(|minutes| now.plus(Duration::from_mins(minutes))));
    }
}
