//! Pages of a list: which one a request asks for, and where it stands.

use poem_openapi::{
    Object,
    registry::{MetaSchema, MetaSchemaRef},
};
use serde::Serialize;

use super::query::{Parameter, inline, schema};

/// The last page that can be asked for: a number that every client can express.
const PAGE_MAX: u32 = i32::MAX.unsigned_abs();

/// `page`: which page of a list is meant; the first by default.
pub struct Page;

impl Parameter for Page {
    type Value = u32;

    fn schema() -> MetaSchemaRef {
        inline(MetaSchema {
            minimum: Some(1.0),
            maximum: Some(PAGE_MAX.into()),
            default: Some(1.into()),
            ..schema("integer", "The page, from 1.")
        })
    }

    fn parse(text: &str) -> Option<u32> {
        whole(text).filter(|page| (1..=PAGE_MAX).contains(page))
    }

    fn must() -> String {
        format!("be a whole number from 1 to {PAGE_MAX}")
    }
}

/// `per_page`: how many entries a page has.
pub struct PerPage;

impl PerPage {
    const MIN: u32 = 5;
    const MAX: u32 = 50;
    /// How many it has by default.
    pub const DEFAULT: u32 = 20;
}

impl Parameter for PerPage {
    type Value = u32;

    fn schema() -> MetaSchemaRef {
        inline(MetaSchema {
            minimum: Some(Self::MIN.into()),
            maximum: Some(Self::MAX.into()),
            default: Some(Self::DEFAULT.into()),
            ..schema("integer", "Entries a page.")
        })
    }

    fn parse(text: &str) -> Option<u32> {
        whole(text).filter(|entries| (Self::MIN..=Self::MAX).contains(entries))
    }

    fn must() -> String {
        format!("be a whole number from {} to {}", Self::MIN, Self::MAX)
    }
}

/// A whole number, which clients may write as `5.0`.
fn whole(text: &str) -> Option<u32> {
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.bytes().all(|b| b.is_ascii_digit()).then(|| whole.parse().ok()).flatten()
}

/// Where a page stands in its list.
#[derive(Debug, Object, Serialize)]
pub struct ResultInfo {
    /// The page, from 1.
    pub page: u32,
    /// Entries a page.
    pub per_page: u32,
    /// Entries on this page.
    pub count: u64,
    /// Entries on all pages.
    pub total_count: u64,
    /// Pages; 0 if the list is empty.
    pub total_pages: u64,
}

impl ResultInfo {
    /// Of page `page`, which has `count` of `total` entries.
    #[must_use]
    pub fn new(page: u32, per_page: u32, count: usize, total: u64) -> Self {
        Self { page, per_page, count: count as u64, total_count: total, total_pages: total.div_ceil(u64::from(per_page)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_written_with_a_zero_fraction() {
        assert_eq!((Page::parse("2.0"), PerPage::parse("5.00")), (Some(2), Some(5)));
    }

    #[test]
    fn what_is_no_whole_number_in_range_is_refused() {
        for bad in ["0", "1.5", "-1", "2147483648", "99999999999", "x", "+1", "1.", ".0", "1.0.0"] {
            assert_eq!(Page::parse(bad), None, "{bad}");
        }
        assert_eq!([4, 5, 50, 51].map(|entries| PerPage::parse(&entries.to_string())), [None, Some(5), Some(50), None]);
    }
}
