//! Time as a parameter: the one place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{
    OffsetDateTime, PrimitiveDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

/// Six fractional digits and `Z`, as RFC 3339 allows and the contract demands.
const RFC3339_MICROS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A point in time: microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This much later, or the last representable time.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This much earlier, or the first representable time.
    #[must_use]
    pub fn minus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Parses an RFC 3339 time with any offset, or returns `None`. Fractions of a microsecond are dropped.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Self)
    }

    /// RFC 3339, UTC, six fractional digits, `Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .filter(|at| (0..=9999).contains(&at.year()))
            .and_then(|at| at.format(RFC3339_MICROS).ok())
            .unwrap_or_else(|| if self.0 < 0 { "0000-01-01T00:00:00.000000Z" } else { "9999-12-31T23:59:59.999999Z" }.to_owned())
    }
}

/// As in the Date header (RFC 9110, 5.6.7).
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

impl Timestamp {
    /// Parses a time as in HTTP's Date header, or returns `None`.
    #[must_use]
    pub fn parse_http_date(text: &str) -> Option<Self> {
        let at = PrimitiveDateTime::parse(text, HTTP_DATE).ok()?.assume_utc();
        Some(Self(at.unix_timestamp().saturating_mul(1_000_000)))
    }

    /// The time as in HTTP's Date header, or `None` outside the years 1970 to 9999.
    #[must_use]
    pub fn http_date(self) -> Option<String> {
        let at = OffsetDateTime::from_unix_timestamp(self.secs()).ok().filter(|at| (1970..=9999).contains(&at.year()))?;
        at.format(HTTP_DATE).ok()
    }
}

/// Where the time comes from; tests bring their own.
pub trait Clock: Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_with_six_digits_and_z() {
        assert_eq!(Timestamp::from_micros(1_700_000_000_000_001).rfc3339(), "2023-11-14T22:13:20.000001Z");
        assert_eq!(Timestamp::from_micros(0).rfc3339(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(i64::MAX).rfc3339(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from_micros(i64::MIN).rfc3339(), "0000-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_time_is_read_with_any_offset() {
        let expected = Some(Timestamp::from_micros(1_700_000_000_500_000));
        for text in ["2023-11-14T22:13:20.5Z", "2023-11-14t23:13:20.5000009+01:00"] {
            assert_eq!(Timestamp::parse_rfc3339(text), expected, "{text}");
        }
        for text in ["", "2023-11-14", "2023-11-14T22:13:20", "1700000000", "2023-02-30T00:00:00Z"] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn an_http_date_is_that_of_the_standard_and_stops_at_the_year_9999() {
        assert_eq!(Timestamp::from_micros(784_111_777_999_999).http_date().unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(Timestamp::from_micros(253_402_300_799_000_000).http_date().unwrap(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(Timestamp::from_micros(253_402_300_800_000_000).http_date(), None);
        assert_eq!(Timestamp::from_micros(-1).http_date(), None);
        assert_eq!(Timestamp::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Timestamp::from_micros(784_111_777_000_000)));
        assert!(
            ["", "1994-11-06", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 31 Feb 1994 08:49:37 GMT"]
                .iter()
                .all(|text| Timestamp::parse_http_date(text).is_none())
        );
    }
}
