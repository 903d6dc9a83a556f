//! The names of a leaf, beside those that its CSR asked for.

use std::{collections::BTreeSet, net::IpAddr};

use x509_parser::{extensions::GeneralName, oid_registry::OID_X509_COMMON_NAME};

use super::{
    issues::{POINTER, warning},
    parsed::Parsed,
    text,
};
use crate::{codes::WarningCode, issue::Warning, names::san::dns_names};

/// A leaf's subject alternative names.
pub struct Names {
    /// In lower case.
    dns: Vec<String>,
    /// IP addresses, as they are written.
    addresses: Vec<String>,
    /// Mail addresses and the like, with their kind: one that reads like a DNS name is none.
    others: Vec<String>,
}

impl Names {
    /// Those of this leaf.
    #[must_use]
    pub fn of(leaf: &Parsed<'_>) -> Self {
        let mut sorted = Self { dns: Vec::new(), addresses: Vec::new(), others: Vec::new() };
        let names = leaf.certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(_) => sorted.dns.push(text::general_name(name).to_ascii_lowercase()),
                GeneralName::IPAddress(_) => sorted.addresses.push(text::general_name(name)),
                _ => sorted.others.push(text::general_name(name)),
            }
        }
        sorted
    }

    /// DNS names, as TLS clients match them; without any, the common name.
    #[must_use]
    pub fn hosts(self, leaf: &Parsed<'_>) -> Vec<String> {
        if self.dns.is_empty() { text::strings(&leaf.certificate.subject, OID_X509_COMMON_NAME).collect() } else { self.dns }
    }

    /// 2010.
    #[must_use]
    pub fn nothing_for_browsers(&self) -> Option<Warning> {
        let has_address = self.addresses.iter().any(|address| address.parse::<IpAddr>().is_ok());
        (!has_address && !self.dns.iter().any(|name| is_plausible(name))).then(|| Warning::at(WarningCode::NoSubjectAltName, POINTER))
    }

    /// 2002: what was added to the CSR's names, and what is missing of them.
    #[must_use]
    pub fn difference(&self, sans: &[String]) -> Option<Warning> {
        let here: BTreeSet<&String> = self.dns.iter().collect();
        let wanted = dns_names(sans);
        let wanted: BTreeSet<&String> = wanted.iter().collect();
        let list = |word: &str, names: Vec<&String>| {
            let names: Vec<&str> = names.iter().map(|name| if name.is_empty() { "an empty name" } else { name }).collect();
            (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
        };
        let parts = [
            list("added", here.difference(&wanted).copied().chain(&self.addresses).chain(&self.others).collect()),
            list("missing", wanted.difference(&here).copied().collect()),
        ];
        let reason = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        (!reason.is_empty()).then(|| warning(WarningCode::CertificateSansDiffer, reason))
    }
}

/// Whether a browser would compare a DNS name with the name of a host. An address among DNS names is none: it is compared with addresses.
fn is_plausible(name: &str) -> bool {
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let labels = name.strip_prefix("*.").unwrap_or(name).trim_end_matches('.');
    labels.split('.').all(is_label) && !labels.rsplit('.').next().is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_no_host_is_not_plausible() {
        for name in
            ["www.acme-widgets.com", "*.acme-widgets.com", "a_b.acme-widgets.com", "www.acme-widgets.com.", "intranet", "xn--mnchen-3ya.de"]
        {
            assert!(is_plausible(name), "{name}");
        }
        for name in [
            "",
            ".",
            "*",
            "*.",
            "a..com",
            "münchen.de",
            "https://acme-widgets.com/",
            "www.acme-widgets.com ",
            "192.0.2.1",
            "www.*.com",
            "::1",
        ] {
            assert!(!is_plausible(name), "{name}");
        }
    }
}
