//! The query of a list.

use poem::{FromRequest, Request, RequestBody};
use shared::{
    error::{ErrorCode, Issue},
    model::{KeyType, Status},
    storage::{Direction, ListQuery, Order},
};

use crate::envelope::ApiError;

/// Custom CSRs a page: the fewest, the most, and without a wish.
pub const PER_PAGE: (u32, u32, u32) = (5, 50, 20);

/// Characters that a search may have.
pub const SEARCH_MAX_CHARS: usize = 255;

/// The raw query of a list request.
pub struct ListParams(Vec<(String, String)>);

impl<'a> FromRequest<'a> for ListParams {
    async fn from_request(req: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let query = req.uri().query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl ListParams {
    /// The query that is meant.
    ///
    /// # Errors
    ///
    /// 1464 for every parameter that is out of range.
    pub fn parse(&self) -> Result<ListQuery, ApiError> {
        let mut issues = Vec::new();
        let mut fault = |reason: String| issues.push(Issue::new(ErrorCode::ParameterOutOfRange).because(reason));
        let (fewest, most, usual) = PER_PAGE;
        let query = ListQuery {
            page: self
                .number("page", 1..=u32::MAX)
                .unwrap_or_else(|()| {
                    fault("query parameter page must be a whole number from 1".to_owned());
                    Some(1)
                })
                .unwrap_or(1),
            per_page: self
                .number("per_page", fewest..=most)
                .unwrap_or_else(|()| {
                    fault(format!("query parameter per_page must be a whole number from {fewest} to {most}"));
                    None
                })
                .unwrap_or(usual),
            order: self.word("order", &["name", "account_tag", "created_at"], parse_order, &mut fault).unwrap_or(Order::CreatedAt),
            direction: self.word("direction", &["asc", "desc"], parse_direction, &mut fault).unwrap_or(Direction::Desc),
            status: self.word("status", &["pending", "active", "failed"], Status::parse, &mut fault),
            key_type: self.word("key_type", &["rsa2048", "p256v1"], KeyType::parse, &mut fault),
            search: self.value("search").map(str::to_owned),
        };
        if query.search.as_ref().is_some_and(|search| search.chars().count() > SEARCH_MAX_CHARS) {
            fault(format!("query parameter search must have at most {SEARCH_MAX_CHARS} characters"));
        }
        if issues.is_empty() { Ok(query) } else { Err(ApiError::new(issues)) }
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

    fn word<T>(&self, name: &str, words: &[&str], parse: impl Fn(&str) -> Option<T>, fault: &mut impl FnMut(String)) -> Option<T> {
        let value = self.value(name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            fault(format!("query parameter {name} must be one of {}", words.join(", ")));
        }
        parsed
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
        ListParams(form_urlencoded::parse(query.as_bytes()).into_owned().collect()).parse()
    }

    #[test]
    fn without_parameters_the_first_twenty_newest_are_meant() {
        let query = parse("unknown=1&page=").unwrap();
        assert_eq!((query.page, query.per_page, query.order, query.direction), (1, 20, Order::CreatedAt, Direction::Desc));
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
