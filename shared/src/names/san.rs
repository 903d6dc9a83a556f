//! Subject alternative names: which ones are accepted, and what the CSR gets.

use std::{borrow::Cow, collections::HashSet};

use super::{a_label, public_suffix::SuffixList};
use crate::codes::ErrorCode;

/// The longest SAN, in characters.
pub const SAN_MAX_CHARS: usize = 255;
/// The longest label (RFC 1035), in characters.
pub(super) const LABEL_MAX_CHARS: usize = 63;
/// The longest DNS name, in characters without the root's dot.
pub const DNS_MAX_CHARS: usize = 253;

const RESERVED_TOP_DOMAINS: [&str; 4] = ["test", "example", "invalid", "localhost"];
pub(super) const EXAMPLE_DOMAINS: [&str; 3] = ["example.com", "example.net", "example.org"];

/// What is wrong with a SAN: its code and, for 1415, the reason.
pub type SanFault = (ErrorCode, Option<String>);

/// Judges SANs.
pub struct SanPolicy {
    /// Whether one leading `*.` is allowed.
    pub allow_wildcards: bool,
    /// The list for 1415.
    pub suffixes: SuffixList,
}

impl SanPolicy {
    /// Judges one SAN; the first failure of the rules, in their order, is the fault.
    ///
    /// # Errors
    ///
    /// 1412 to 1416.
    pub fn judge(&self, san: &str) -> Result<(), SanFault> {
        if san.chars().count() > SAN_MAX_CHARS {
            return Err((ErrorCode::SanInvalid, None));
        }
        let name = if self.allow_wildcards { san.strip_prefix("*.").unwrap_or(san) } else { san };
        if has_bad_form(name) {
            return Err((ErrorCode::SanInvalid, None));
        }
        if !name.is_ascii() {
            return Err((ErrorCode::SanNotAscii, None));
        }
        if has_bad_labels(name) {
            return Err((ErrorCode::SanInvalid, None));
        }
        let name = lower_case(name);
        if RESERVED_TOP_DOMAINS.contains(&last_label(&name)) {
            return Err((ErrorCode::SanReserved, None));
        }
        if EXAMPLE_DOMAINS.iter().any(|domain| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))) {
            return Err((ErrorCode::SanExampleDomain, None));
        }
        self.suffixes.registrable_domain(&name).map_err(|error| (ErrorCode::SanNotRegistrable, Some(error.to_string())))?;
        Ok(())
    }

    /// The top domain of a SAN that was accepted, for a message, if the public DNS has no such one.
    #[must_use]
    pub fn unlisted_top_domain(&self, san: &str) -> Option<String> {
        let name = lower_case(san.strip_prefix("*.").unwrap_or(san));
        self.suffixes.is_unlisted(&name).then(|| format!("‘.{}’", last_label(&name)))
    }
}

/// The first rule, on the raw string. It refuses IPv6 addresses by their characters; the third rule refuses IPv4 addresses.
fn has_bad_form(name: &str) -> bool {
    let bad_char = |c: char| c.is_ascii() && !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    name.contains(bad_char) || name.starts_with('-') || name.ends_with('-') || name.split('.').any(str::is_empty)
}

/// The third rule, on the labels of an ASCII name.
fn has_bad_labels(name: &str) -> bool {
    let bad = |label: &str| label.len() > LABEL_MAX_CHARS || label.starts_with('-') || label.ends_with('-');
    name.split('.').any(bad) || is_number(last_label(name))
}

/// The first label that public CAs refuse because it looks like an A-label and is none, with the reason, for a message.
#[must_use]
pub fn reserved_label(san: &str) -> Option<String> {
    let name = lower_case(san);
    name.split('.').find_map(|label| a_label::fault(label).map(|why| format!("‘{label}’ {why}")))
}

/// Lower-cases ASCII letters only. Most names are in lower case already and need no copy.
fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() }
}

pub(super) fn last_label(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

/// Whether parsers of IPv4 addresses take the label for a number: they take a name that ends in one for an address.
pub(super) fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    hex.map_or_else(|| !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()), |hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The names for the CSR: in lower case, without repeats, in the order given.
#[must_use]
pub fn dns_names(sans: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    sans.iter().map(|san| san.to_ascii_lowercase()).filter(|name| seen.insert(name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leading_wildcard_is_let_through_where_it_is_allowed_and_the_rest_is_judged() {
        let policy = SanPolicy { allow_wildcards: true, suffixes: SuffixList::embedded() };
        assert_eq!(policy.judge("*.foo.com"), Ok(()));
        let reason = "publicsuffix: cannot derive eTLD+1 for domain \"co.uk\"";
        assert_eq!(policy.judge("*.co.uk"), Err((ErrorCode::SanNotRegistrable, Some(reason.into()))));
        for bad in ["a.*.b", "*a.b", "*.*.b", "*", "*.", "*.-a.com", "*.1.2.3.4"] {
            assert_eq!(policy.judge(bad), Err((ErrorCode::SanInvalid, None)), "{bad}");
        }
        let long = format!("{}.com", ["a".repeat(62).as_str(); 4].join("."));
        assert_eq!(long.chars().count(), 255);
        assert_eq!(policy.judge(&long), Ok(()));
        assert_eq!(policy.judge(&format!("*.{long}")), Err((ErrorCode::SanInvalid, None)), "the 255 counts the whole");
        assert_eq!(policy.judge("*.foo.test"), Err((ErrorCode::SanReserved, None)));
    }

    #[test]
    fn a_top_domain_that_the_public_dns_does_not_have_is_named() {
        let policy = SanPolicy { allow_wildcards: true, suffixes: SuffixList::embedded() };
        for (san, top) in [
            ("printer.LOCAL", "‘.local’"),
            ("svc.acme.internal", "‘.internal’"),
            ("*.acme.corp", "‘.corp’"),
            ("a.xn--zckzah", "‘.xn--zckzah’"),
        ] {
            assert_eq!((policy.judge(san), policy.unlisted_top_domain(san).as_deref()), (Ok(()), Some(top)));
        }
        for san in
            ["www.acme-widgets.com", "WWW.ACME.DE", "*.acme.co.uk", "acme.github.io", "a.b.ck", "xn--80aswg.xn--p1ai", "acme.xn--fiqs8s"]
        {
            assert_eq!((policy.judge(san), policy.unlisted_top_domain(san)), (Ok(()), None), "{san}");
        }
    }

    #[test]
    fn a_non_ascii_name_that_ends_in_a_number_is_non_ascii_first() {
        let policy = SanPolicy { allow_wildcards: false, suffixes: SuffixList::embedded() };
        assert_eq!(policy.judge("é.1"), Err((ErrorCode::SanNotAscii, None)));
    }

    #[test]
    fn a_csr_gets_each_name_once_in_lower_case_and_in_order() {
        let sans = ["B.com", "a.com", "b.COM", "a.com"].map(str::to_owned);
        assert_eq!(dns_names(&sans), ["b.com", "a.com"]);
    }
}
