//! The one rule that a refused SAN breaks, in words: the texts of the codes name all rules together.

use std::net::IpAddr;

use super::san::{EXAMPLE_DOMAINS, LABEL_MAX_CHARS, SAN_MAX_CHARS, SanPolicy, is_number, last_label};
use crate::{
    codes::ErrorCode,
    printable::{escape, excerpt},
};

/// The most characters of a name that a hint repeats.
const SHOWN_CHARS: usize = 100;

impl SanPolicy {
    /// A sentence that names a SAN, which was refused with this code, and the rule that it breaks.
    #[must_use]
    pub fn broken_rule(&self, code: ErrorCode, san: &str) -> String {
        let rule = match code {
            ErrorCode::SanNotAscii => "has a character that is not ASCII: write its labels as A-labels (xn--…)".to_owned(),
            ErrorCode::SanReserved => format!("ends in .{}, a top domain that is reserved", last_label(san).to_ascii_lowercase()),
            // Of an unlisted top domain, only the top domain itself is refused.
            ErrorCode::SanNotRegistrable if self.unlisted_top_domain(san).is_some() => {
                "has one label only: send the full host name".to_owned()
            }
            ErrorCode::SanNotRegistrable => "is a public suffix, under which others register names: add the label before it".to_owned(),
            ErrorCode::SanExampleDomain => {
                let lower = san.to_ascii_lowercase();
                let domain = EXAMPLE_DOMAINS.into_iter().find(|domain| lower.ends_with(domain)).unwrap_or_default();
                format!("is in {domain}, a domain for examples")
            }
            _ => form(san, self.allow_wildcards),
        };
        format!("‘{}’ {rule}.", excerpt(san, SHOWN_CHARS))
    }
}

/// The rule of 1412 that a name breaks. What people send most comes first, in words of its own.
fn form(san: &str, allow_wildcards: bool) -> String {
    if san.chars().count() > SAN_MAX_CHARS {
        return format!("has over {SAN_MAX_CHARS} characters");
    }
    if let Some(problem) = foreign(san) {
        return problem.to_owned();
    }
    let name = if allow_wildcards { san.strip_prefix("*.").unwrap_or(san) } else { san };
    if name.contains('*') {
        let rule = if allow_wildcards {
            "has a * in the wrong place: this service allows one, as the whole first label"
        } else {
            "is a wildcard: this service does not allow wildcards"
        };
        return rule.to_owned();
    }
    if let Some(bad) = name.chars().find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
        return format!("has the character {}, which no host name has", escape(&format!("‘{bad}’")));
    }
    let labels = || name.split('.');
    let rule = if name.ends_with('.') {
        "ends with a dot: leave it out"
    } else if labels().any(str::is_empty) {
        "has an empty label: a dot at its beginning, or two in a row"
    } else if labels().any(|label| label.starts_with('-') || label.ends_with('-')) {
        "has a label that begins or ends with a hyphen"
    } else if labels().any(|label| label.len() > LABEL_MAX_CHARS) {
        return format!("has a label of over {LABEL_MAX_CHARS} characters");
    } else if is_number(last_label(name)) {
        "ends in a number, as only IP addresses do"
    } else {
        "is not a host name"
    };
    rule.to_owned()
}

/// What a name is that belongs to another notation.
fn foreign(san: &str) -> Option<&'static str> {
    let is_address = san.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let has_port = || san.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if san.is_empty() {
        Some("is empty: leave it out, or send a host name")
    } else if is_address {
        Some("is an IP address: send a host name")
    } else if san.contains("://") {
        Some("is a URL: send its host name alone")
    } else if san.contains(',') || san.contains(';') {
        Some("is a list: send each name as an element of its own")
    } else if san.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("dns:")) {
        Some("begins with ‘DNS:’: send the host name alone")
    } else if san.contains('@') {
        Some("is an e-mail address: send a host name")
    } else if san.contains(char::is_whitespace) {
        Some("has white space: leave it out")
    } else if has_port() {
        Some("has a port: send the host name alone")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{public_suffix::SuffixList, san::SanPolicy};

    fn hint(san: &str, allow_wildcards: bool) -> String {
        let policy = SanPolicy { allow_wildcards, suffixes: SuffixList::embedded() };
        let (code, _) = policy.judge(san).unwrap_err();
        policy.broken_rule(code, san)
    }

    #[test]
    fn each_name_is_told_the_one_rule_that_it_breaks() {
        let long_label = format!("{}.com", "a".repeat(64));
        for (san, words) in [
            ("", "‘’ is empty"),
            ("a b.com", "‘a b.com’ has white space"),
            ("DNS:a.com", "begins with ‘DNS:’"),
            ("https://a.com", "is a URL"),
            ("a.com:443", "has a port"),
            ("me@a.com", "is an e-mail address"),
            ("a.com.", "ends with a dot"),
            ("192.0.2.1", "is an IP address"),
            ("[2001:db8::1]", "is an IP address"),
            ("1.2.3", "ends in a number"),
            ("a.com,b.com", "is a list"),
            (".a.com", "has an empty label"),
            ("a..com", "has an empty label"),
            ("-a.com", "hyphen"),
            ("a.-b.com", "hyphen"),
            ("a!.com", "has the character ‘!’"),
            ("a\u{0}.com", "has the character ‘\\u0000’"),
            (long_label.as_str(), "has a label of over 63 characters"),
            ("müller.de", "is not ASCII"),
            ("shop.TEST", "ends in .test"),
            ("co.uk", "is a public suffix"),
            ("com", "is a public suffix"),
            ("Intranet", "‘Intranet’ has one label only"),
            ("www.example.org", "is in example.org"),
        ] {
            let hint = hint(san, false);
            assert!(hint.contains(words), "{hint}");
        }
        let hint = hint(&"ü".repeat(300), false);
        assert!(hint.contains("has over 255 characters") && hint.chars().count() < 200, "{hint}");
    }

    #[test]
    fn a_wildcard_is_told_whether_this_service_allows_them() {
        assert_eq!(hint("*.a.com", false), "‘*.a.com’ is a wildcard: this service does not allow wildcards.");
        for san in ["a.*.com", "*.*.com", "*a.com", "*"] {
            assert!(hint(san, true).contains("this service allows one, as the whole first label"), "{san}");
        }
        assert!(hint("*.co.uk", true).contains("is a public suffix"));
        assert!(hint("*.intranet", true).contains("‘*.intranet’ has one label only"));
    }

    proptest! {
        #[test]
        fn every_name_that_is_refused_breaks_a_rule_that_has_words(san in "[a-c0-9*._ -]{0,12}", allow_wildcards: bool) {
            let policy = SanPolicy { allow_wildcards, suffixes: SuffixList::embedded() };
            if let Err((code, _)) = policy.judge(&san) {
                let hint = policy.broken_rule(code, &san);
                prop_assert!(!hint.ends_with("is not a host name."), "{}", hint);
            }
        }
    }
}
