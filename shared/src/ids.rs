//! Typed IDs: an ID that was parsed once is not checked again.

use std::{fmt, sync::Mutex};

use uuid::{ContextV7, Uuid};

use crate::clock::Timestamp;

/// Counts the IDs of one millisecond, so that they sort in the order in which this process makes them.
static ORDER: Mutex<ContextV7> = Mutex::new(ContextV7::new());

/// Whether a text has 1 to 64 of `A-Z a-z 0-9 . _ -` and nothing else.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A zone's or an account's ID: 1 to 64 of `A-Z a-z 0-9 . _ -`, but not `.` or `..`, which clients and proxies resolve in paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(String);

impl TenantId {
    /// Parses an ID, or returns `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (is_plain(text) && !matches!(text, "." | "..")).then(|| Self(text.to_owned()))
    }

    /// The ID as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A zone or an account, which has custom CSRs. Its text form, `zones/ID` or `accounts/ID`, is what the
/// database holds and what a sealed record is bound to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A zone.
    Zone(TenantId),
    /// An account.
    Account(TenantId),
}

impl Scope {
    /// Parses the text form, or returns `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/')? {
            ("zones", id) => TenantId::parse(id).map(Self::Zone),
            ("accounts", id) => TenantId::parse(id).map(Self::Account),
            _ => None,
        }
    }

    /// The ID alone.
    #[must_use]
    pub const fn id(&self) -> &TenantId {
        match self {
            Self::Zone(id) | Self::Account(id) => id,
        }
    }

    /// `zone` or `account`, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Zone(_) => "zone",
            Self::Account(_) => "account",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s/{}", self.kind(), self.id())
    }
}

/// The ID of a custom CSR: a UUID, version 7 (RFC 9562) where we made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomCsrId(Uuid);

impl CustomCsrId {
    /// A fresh ID. Those of one process sort in the order in which they were made, even if its clock is set back.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let secs = u64::try_from(now.secs()).unwrap_or_default();
        let nanos = u32::try_from(now.micros().rem_euclid(1_000_000)).unwrap_or_default() * 1_000;
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(&ORDER, secs, nanos)))
    }

    /// Parses an ID: 36 characters of 8-4-4-4-12 hexadecimal in either case. Returns `None` for other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 36).then(|| Uuid::try_parse(text).ok().map(Self)).flatten()
    }
}

impl fmt::Display for CustomCsrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The ID of a custom certificate: 32 hexadecimal digits, those of a UUID, version 7 (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomCertificateId(Uuid);

impl CustomCertificateId {
    /// A fresh ID. Those of one process sort in the order in which they were made, even if its clock is set back.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(CustomCsrId::new(now).0)
    }

    /// Parses an ID: 32 hexadecimal digits in either case. Returns `None` for other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| Uuid::try_parse(text).ok().map(Self)).flatten()
    }
}

impl fmt::Display for CustomCertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// Declares IDs in the form of a custom CSR's.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(CustomCsrId);

        impl $name {
            /// A fresh ID. Those of one process sort in the order in which they were made, even if its clock is set back.
            #[must_use]
            pub fn new(now: Timestamp) -> Self {
                Self(CustomCsrId::new(now))
            }

            /// Parses an ID: 36 characters of 8-4-4-4-12 hexadecimal in either case. Returns `None` for other text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                CustomCsrId::parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+ };
}

ids! {
    /// The ID of a webhook: a UUID, version 7 (RFC 9562).
    WebhookId;
    /// The ID of a hand-over link: a UUID, version 7 (RFC 9562).
    HandoverId;
    /// The ID of a set of custom CSRs, which differ in their keys alone: a UUID, version 7 (RFC 9562).
    SetId;
    /// The ID of a plan of rekeys: a UUID, version 7 (RFC 9562).
    IncidentId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_csr_id_is_36_characters_of_hexadecimal_in_groups() {
        let id = CustomCsrId::new(Timestamp::from_micros(1_700_000_000_000_000));
        assert_eq!(CustomCsrId::parse(&id.to_string()), Some(id));
        assert_eq!(CustomCsrId::parse(&id.to_string().to_uppercase()), Some(id));
        assert_eq!(id.to_string().as_bytes()[14], b'7');
        for bad in
            ["", "1", "0190163d86946739aea5966c26f8ad91", "{0190163d-8694-6739-aea5-966c26f8ad9}", "0190163d-8694-6739-aea5-966c26f8ad9g"]
        {
            assert_eq!(CustomCsrId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_of_one_millisecond_sort_in_the_order_in_which_they_were_made_and_so_do_those_after_a_clock_was_set_back() {
        let at = |micros: i64| Timestamp::from_micros(1_700_000_000_000_000 + micros);
        let mut csrs: Vec<_> = (0..1_000).map(|_| CustomCsrId::new(at(0))).collect();
        csrs.push(CustomCsrId::new(at(-5_000_000)));
        csrs.push(CustomCsrId::new(at(1_000)));
        assert!(csrs.is_sorted_by(|earlier, later| earlier < later && earlier.to_string() < later.to_string()));
        let certificates: Vec<_> = (0..1_000).map(|_| CustomCertificateId::new(at(1_000))).collect();
        assert!(certificates.is_sorted_by(|earlier, later| earlier.to_string() < later.to_string()));
    }

    #[test]
    fn a_custom_certificate_id_is_32_hexadecimal_digits() {
        let id = CustomCertificateId::new(Timestamp::from_micros(1_700_000_000_000_000));
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(CustomCertificateId::parse(&id.to_string()), Some(id));
        assert_eq!(CustomCertificateId::parse(&id.to_string().to_uppercase()), Some(id));
        for bad in ["", "1", "0190163d-8694-6739-aea5-966c26f8ad91", "0190163d86946739aea5966c26f8ad9g", "{190163d86946739aea5966c26f8ad9}"]
        {
            assert_eq!(CustomCertificateId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tenant_id_is_1_to_64_plain_characters() {
        assert!(TenantId::parse(&"a".repeat(64)).is_some());
        for bad in ["", ".", "..", "a/b", "a b", "ü", "%ff", &"a".repeat(65)] {
            assert!(TenantId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_scope_reads_back_from_its_text() {
        for text in ["zones/z.1", "accounts/a-1"] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        assert!(Scope::parse("zone/z").is_none());
    }
}
