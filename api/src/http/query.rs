//! Query parameters.

use std::collections::BTreeSet;

use poem::{FromRequest, Request, RequestBody};
use shared::{
    clock::Timestamp,
    codes::ErrorCode,
    custom_certificate::CertificateStatus,
    custom_csr::{KeyType, Status},
    ids::CustomCsrId,
    issue::Issue,
    storage::{CertificateQuery, Direction, ListQuery, Order},
};

use crate::http::envelope::ApiError;

/// Entries a page: the fewest, the most, and without a wish.
pub const PER_PAGE: (u32, u32, u32) = (5, 50, 20);

/// Characters that a search may have.
pub const SEARCH_MAX_CHARS: usize = 255;

/// The raw query of a request.
pub struct Query(Vec<(String, String)>);

impl<'a> FromRequest<'a> for Query {
    async fn from_request(req: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let query = req.uri().query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Query {
    /// The list of custom CSRs that is meant.
    ///
    /// # Errors
    ///
    /// 1464 for every parameter that is out of range.
    pub fn custom_csrs(&self) -> Result<ListQuery, ApiError> {
        let mut faults = Faults::default();
        let (page, per_page) = self.pages(&mut faults);
        let query = ListQuery {
            page,
            per_page,
            order: self.word("order", &["name", "account_tag", "created_at"], parse_order, &mut faults).unwrap_or(Order::CreatedAt),
            direction: self.word("direction", &["asc", "desc"], parse_direction, &mut faults).unwrap_or(Direction::Desc),
            status: self.word("status", &["pending", "active", "failed"], Status::parse, &mut faults),
            key_type: self.word("key_type", &["rsa2048", "p256v1"], KeyType::parse, &mut faults),
            search: self.value("search").map(str::to_owned),
        };
        if query.search.as_ref().is_some_and(|search| search.chars().count() > SEARCH_MAX_CHARS) {
            faults.add(&format!("search must have at most {SEARCH_MAX_CHARS} characters"));
        }
        faults.none_or(query)
    }

    /// The list of custom certificates that is meant, as it stands `now`.
    ///
    /// # Errors
    ///
    /// 1464 for every parameter that is out of range.
    pub fn certificates(&self, now: Timestamp) -> Result<CertificateQuery, ApiError> {
        let mut faults = Faults::default();
        let (page, per_page) = self.pages(&mut faults);
        let words: Vec<&str> = CertificateStatus::ALL.iter().map(|status| status.as_str()).collect();
        let status = self.word("status", &words, CertificateStatus::parse, &mut faults);
        let custom_csr_id = self.parsed("custom_csr_id", "a UUID", CustomCsrId::parse, &mut faults);
        let expires_before = self.parsed("expires_before", "a time as in RFC 3339", Timestamp::parse_rfc3339, &mut faults);
        let host = self.value("host").map(str::to_lowercase);
        if host.as_ref().is_some_and(|host| host.chars().count() > SEARCH_MAX_CHARS) {
            faults.add(&format!("host must have at most {SEARCH_MAX_CHARS} characters"));
        }
        faults.none_or(CertificateQuery { page, per_page, status, custom_csr_id, host, expires_before, now })
    }

    /// Whether a flag is set: `true`, or else `false` or absent. Unlike others, an empty value is no absent one, and several that differ are
    /// none: what is stored by mistake cannot be taken back.
    ///
    /// # Errors
    ///
    /// 1464 where it is another word, or empty, or both.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        let mut faults = Faults::default();
        let values: BTreeSet<&str> = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
        let flag = match values.iter().copied().collect::<Vec<_>>()[..] {
            [] | ["false"] => false,
            ["true"] => true,
            _ => {
                faults.add(&format!("{name} must be one of true, false"));
                false
            }
        };
        faults.none_or(flag)
    }

    fn pages(&self, faults: &mut Faults) -> (u32, u32) {
        let (fewest, most, usual) = PER_PAGE;
        let page = self.number("page", 1..=u32::MAX).unwrap_or_else(|()| {
            faults.add("page must be a whole number from 1");
            None
        });
        let per_page = self.number("per_page", fewest..=most).unwrap_or_else(|()| {
            faults.add(&format!("per_page must be a whole number from {fewest} to {most}"));
            None
        });
        (page.unwrap_or(1), per_page.unwrap_or(usual))
    }

    /// The first value of this name; an empty one is none.
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A whole number, which clients may write as `5.0`.
    fn number(&self, name: &str, range: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, ()> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let whole = match value.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') => whole,
            Some(_) => return Err(()),
            None => value,
        };
        if !whole.bytes().all(|b| b.is_ascii_digit()) {
            return Err(());
        }
        whole.parse().ok().filter(|number| range.contains(number)).map(Some).ok_or(())
    }

    fn parsed<T>(&self, name: &str, what: &str, parse: impl Fn(&str) -> Option<T>, faults: &mut Faults) -> Option<T> {
        let parsed = parse(self.value(name)?);
        if parsed.is_none() {
            faults.add(&format!("{name} must be {what}"));
        }
        parsed
    }

    fn word<T>(&self, name: &str, words: &[&str], parse: impl Fn(&str) -> Option<T>, faults: &mut Faults) -> Option<T> {
        let value = self.value(name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            faults.add(&format!("{name} must be one of {}", words.join(", ")));
        }
        parsed
    }
}

/// The query parameters that are out of range.
#[derive(Default)]
struct Faults(Vec<Issue>);

impl Faults {
    fn add(&mut self, what: &str) {
        self.0.push(Issue::new(ErrorCode::ParameterOutOfRange).because(format!("query parameter {what}")));
    }

    fn none_or<T>(self, value: T) -> Result<T, ApiError> {
        if self.0.is_empty() { Ok(value) } else { Err(ApiError::new(self.0)) }
    }
}

fn parse_order(word: &str) -> Option<Order> {
    match word {
        "name" => Some(Order::Name),
        "account_tag" => Some(Order::AccountTag),
        "created_at" => Some(Order::CreatedAt),
        _ => None,
    }
}

fn parse_direction(word: &str) -> Option<Direction> {
    match word {
        "asc" => Some(Direction::Asc),
        "desc" => Some(Direction::Desc),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use poem::error::ResponseError;

    use super::*;

    fn parse(query: &str) -> Result<ListQuery, ApiError> {
        Query(form_urlencoded::parse(query.as_bytes()).into_owned().collect()).custom_csrs()
    }

    #[test]
    fn without_parameters_the_first_twenty_newest_are_meant() {
        let query = parse("unknown=1&page=").unwrap();
        assert_eq!((query.page, query.per_page, query.order, query.direction), (1, 20, Order::CreatedAt, Direction::Desc));
    }

    #[test]
    fn a_flag_is_absent_true_or_false_and_nothing_else() {
        let flag = |query: &str| {
            Query(form_urlencoded::parse(query.as_bytes()).into_owned().collect()).flag("dry_run").map_err(|error| error.status().as_u16())
        };
        for (query, expected) in [("", false), ("dry_run=false", false), ("dry_run=true", true), ("dry_run=true&dry_run=true", true)] {
            assert_eq!(flag(query), Ok(expected), "{query}");
        }
        let bad =
            ["", "=", "=1", "=0", "=yes", "=TRUE", "=False", "=%20true", "=true&dry_run=false", "=false&dry_run=true", "=false&dry_run="];
        for rest in bad {
            assert_eq!(flag(&format!("x=1&dry_run{rest}")), Err(400), "{rest}");
        }
    }

    #[test]
    fn numbers_may_be_written_with_a_zero_fraction() {
        let query = parse("page=2.0&per_page=5.00").unwrap();
        assert_eq!((query.page, query.per_page), (2, 5));
    }

    #[test]
    fn every_parameter_out_of_range_is_named() {
        let bad = [
            "page=0",
            "page=1.5",
            "page=-1",
            "page=99999999999",
            "page=x",
            "per_page=4",
            "per_page=51",
            "order=id",
            "direction=up",
            "status=done",
            "key_type=rsa",
            "page=%2B1",
        ];
        for query in bad {
            assert_eq!(parse(query).unwrap_err().status().as_u16(), 400, "{query}");
        }
        let long = format!("page=0&per_page=1&order=x&direction=x&status=x&key_type=x&search={}", "x".repeat(256));
        let body = futures::executor::block_on(parse(&long).unwrap_err().as_response().into_body().into_string()).unwrap();
        for name in ["page", "per_page", "order", "direction", "status", "key_type", "search"] {
            assert!(body.contains(&format!("query parameter {name} ")), "{body}");
        }
    }
}
