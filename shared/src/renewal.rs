//! Renewal: a zone's policy, when a renewal is due, and its status.

use std::time::Duration;

use crate::{clock::Timestamp, ids::Scope, words::words};

words! {
    /// Which key renewed certificates have.
    RenewalKey {
        /// The same as before.
        Reuse = "reuse",
        /// A new one each time.
        New = "new",
    }

    /// The status of a certificate's renewal.
    RenewalStatus {
        /// Not due.
        None = "none",
        /// Due; there is no CSR to sign yet.
        Due = "due",
        /// There is a CSR to sign.
        CsrReady = "csr_ready",
        /// The renewed certificate is stored. The status stays so until the next renewal is due.
        Done = "done",
    }
}

/// Which part of the lifetime is left when a certificate is renewed: more than 0 and less than 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fraction(f64);

impl Default for Fraction {
    /// A third.
    fn default() -> Self {
        Self(1.0 / 3.0)
    }
}

impl Fraction {
    /// A number, or `None` unless it is more than 0 and less than 1.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        (number > 0.0 && number < 1.0).then_some(Self(number))
    }

    /// Parses what [`Self::to_text`] wrote, or returns `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().and_then(Self::new)
    }

    /// The form in the database: the shortest decimal that parses to the same number.
    #[must_use]
    pub fn to_text(self) -> String {
        self.0.to_string()
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> f64 {
        self.0
    }

    /// When a certificate with this lifetime is renewed.
    #[must_use]
    pub fn point(self, not_before: Timestamp, not_after: Timestamp) -> Timestamp {
        let life = Duration::from_micros(not_after.micros().saturating_sub(not_before.micros()).max(0).unsigned_abs());
        not_after.minus(life.mul_f64(self.0))
    }
}

/// A zone's policy for renewing its certificates.
#[derive(Debug, Clone, PartialEq)]
pub struct RenewalPolicy {
    /// The zone.
    pub zone: Scope,
    /// With which key.
    pub key: RenewalKey,
    /// When.
    pub at: Fraction,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was last set.
    pub updated_at: Timestamp,
}

/// The state of a certificate's renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Its status.
    pub status: RenewalStatus,
    /// The time from which the issuer wants the certificate renewed (ARI, RFC 9773), if it says so.
    pub after: Option<Timestamp>,
    /// The page with the issuer's reason.
    pub explanation_url: Option<String>,
}

impl Default for Renewal {
    /// The state of a certificate that was just stored.
    fn default() -> Self {
        Self { status: RenewalStatus::None, after: None, explanation_url: None }
    }
}

impl Renewal {
    /// The state after the certificate was replaced.
    #[must_use]
    pub fn after_replacement(&self) -> Self {
        let status = if self.status == RenewalStatus::None { RenewalStatus::None } else { RenewalStatus::Done };
        Self { status, ..Self::default() }
    }
}

/// The status of a renewal by its columns: `state` is about the leaf with the fingerprint `about`, and the certificate has the leaf `present`.
#[must_use]
pub fn status(state: Option<RenewalStatus>, about: Option<&str>, present: &str) -> RenewalStatus {
    match state {
        None => RenewalStatus::None,
        Some(state) if about == Some(present) => state,
        Some(_) => RenewalStatus::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn a_fraction_is_over_nothing_and_under_one_and_read_back_as_it_is() {
        for number in [0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Fraction::new(number).is_none(), "{number}");
        }
        for number in [f64::MIN_POSITIVE, 0.1, 1.0 / 3.0, 1.0 - f64::EPSILON] {
            let fraction = Fraction::new(number).unwrap();
            assert_eq!(Fraction::parse(&fraction.to_text()), Some(fraction));
        }
        assert!(["", "x", "0", "1"].iter().all(|text| Fraction::parse(text).is_none()));
    }

    #[test]
    fn the_point_is_where_the_fraction_of_the_life_is_left() {
        let at = |days: i64| Timestamp::from_micros(days * DAY);
        let point = |number, begin, end| Fraction::new(number).unwrap().point(at(begin), at(end));
        assert_eq!(point(0.5, 0, 90), at(45));
        assert_eq!(point(0.25, 10, 50), at(40));
        assert_eq!(Fraction::default().point(at(0), at(48)), at(32));
        assert_eq!(point(0.5, 90, 0), at(0), "a life that ends before it begins has no length");
    }

    #[test]
    fn a_state_is_about_one_leaf_and_of_the_next_it_says_that_the_renewal_is_done() {
        assert_eq!(status(None, None, "a"), RenewalStatus::None);
        assert_eq!(status(Some(RenewalStatus::Due), Some("a"), "a"), RenewalStatus::Due);
        assert_eq!(status(Some(RenewalStatus::CsrReady), Some("a"), "a"), RenewalStatus::CsrReady);
        assert_eq!(status(Some(RenewalStatus::CsrReady), Some("a"), "b"), RenewalStatus::Done);
        for state in [RenewalStatus::Due, RenewalStatus::CsrReady, RenewalStatus::Done] {
            let renewed = Renewal { status: state, ..Renewal::default() }.after_replacement();
            assert_eq!(renewed.status, RenewalStatus::Done);
        }
        assert_eq!(Renewal::default().after_replacement(), Renewal::default());
    }
}
