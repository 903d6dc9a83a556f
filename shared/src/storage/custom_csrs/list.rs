//! Lists of custom CSRs: filtered, searched, sorted, a page at a time.

use super::read::columns_with_certificates;
use crate::{
    custom_csr::{CustomCsr, CustomCsrRequest, KeyType, Status},
    ids::{Scope, SetId},
    storage::{
        Dialect, StoreError,
        engine::{Reader, Sql, Statement, statements, values},
    },
};

/// In which order a list stands. Ties stand by ID, in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By the tenant's own name; without one last.
    Name,
    /// By account; without one last.
    AccountTag,
    /// By the time of acceptance.
    CreatedAt,
}

/// Which way a list stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Asc,
    /// Largest first.
    Desc,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Asc => Self::Desc,
            Self::Desc => Self::Asc,
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The page, from 1.
    pub page: u32,
    /// Rows a page.
    pub per_page: u32,
    /// What it is sorted by.
    pub order: Order,
    /// And which way.
    pub direction: Direction,
    /// Only those with this status.
    pub status: Option<Status>,
    /// Only those with this key type.
    pub key_type: Option<KeyType>,
    /// Only those with this text in name, common name or a SAN, ASCII case ignored.
    pub search: Option<String>,
    /// Only those of this set.
    pub set_id: Option<SetId>,
}

impl ListQuery {
    /// Whether it may leave some rows of the scope out.
    #[must_use]
    pub const fn is_filtered(&self) -> bool {
        self.status.is_some() || self.key_type.is_some() || self.search.is_some() || self.set_id.is_some()
    }
}

/// A page's rows and how many rows all pages have together.
#[derive(Debug, Clone)]
pub struct Page {
    /// The rows, in order.
    pub rows: Vec<CustomCsr>,
    /// Rows on all pages.
    pub total: u64,
}

/// The rows of one scope that a list's filters leave: `$1` scope, `$2` status, `$3` key type, `$4` search pattern.
macro_rules! filter {
    () => {
        "FROM custom_csrs WHERE scope = $1 AND (CAST($2 AS TEXT) IS NULL OR status = $2) AND (CAST($3 AS TEXT) IS NULL OR key_type = $3) \
         AND (CAST($4 AS TEXT) IS NULL OR search_text LIKE $4 ESCAPE '!')"
    };
}

/// One page in one order. The inner query finds the IDs by index alone, the outer one reads the rows.
macro_rules! page {
    ($order:literal) => {
        page!($order, "")
    };
    ($order:literal, $more:literal) => {
        concat!(
            "SELECT ",
            columns_with_certificates!(),
            " FROM custom_csrs WHERE id IN (SELECT id ",
            filter!(),
            $more,
            " ORDER BY ",
            $order,
            " LIMIT $5 OFFSET $6) ORDER BY ",
            $order
        )
    };
}

/// The same of one set, `$7`, which has an index of its own.
macro_rules! page_of_set {
    ($order:literal) => {
        page!($order, " AND set_id = $7")
    };
}

statements! {
    /// The transactions that accept, delete and restore maintain these numbers.
    COUNT_OF_SCOPE = "SELECT used + beside_quota - hidden AS total FROM scopes WHERE scope = $1";
    COUNT_CUSTOM_CSRS = concat!("SELECT COUNT(*) AS total ", filter!());
    COUNT_OF_SET = concat!("SELECT COUNT(*) AS total ", filter!(), " AND set_id = $5");
    PAGE_BY_CREATED_AT_ASC = page!("created_at, id");
    PAGE_BY_CREATED_AT_DESC = page!("created_at DESC, id DESC");
    PAGE_BY_NAME_ASC = page!("name IS NULL, name, id");
    PAGE_BY_NAME_DESC = page!("name IS NULL, name DESC, id DESC");
    PAGE_BY_ACCOUNT_ASC = page!("account_id IS NULL, account_id, id");
    PAGE_BY_ACCOUNT_DESC = page!("account_id IS NULL, account_id DESC, id DESC");
    PAGE_OF_SET_BY_CREATED_AT_ASC = page_of_set!("created_at, id");
    PAGE_OF_SET_BY_CREATED_AT_DESC = page_of_set!("created_at DESC, id DESC");
    PAGE_OF_SET_BY_NAME_ASC = page_of_set!("name IS NULL, name, id");
    PAGE_OF_SET_BY_NAME_DESC = page_of_set!("name IS NULL, name DESC, id DESC");
    PAGE_OF_SET_BY_ACCOUNT_ASC = page_of_set!("account_id IS NULL, account_id, id");
    PAGE_OF_SET_BY_ACCOUNT_DESC = page_of_set!("account_id IS NULL, account_id DESC, id DESC");
}

impl<DB: Dialect> Sql<DB> {
    /// One page of a scope's custom CSRs.
    pub(in crate::storage) async fn page(&self, scope: &Scope, query: &ListQuery) -> Result<Page, StoreError> {
        let mut tx = self.begin_read().await?;
        let mut filter = values![
            scope.to_string(),
            query.status.map(|status| status.as_str().to_owned()),
            query.key_type.map(|key_type| key_type.as_str().to_owned()),
            query.search.as_deref().map(search_pattern),
        ];
        let set_id = query.set_id.map(|id| id.to_string());
        // Without a filter all of the scope's rows count, and their number is kept.
        let (count, values) = match &set_id {
            Some(set_id) => (COUNT_OF_SET, [filter.clone(), values![set_id.clone()]].concat()),
            None if query.is_filtered() => (COUNT_CUSTOM_CSRS, filter.clone()),
            None => (COUNT_OF_SCOPE, values![scope.to_string()]),
        };
        let total = self.total(&mut tx, count, values).await?;
        let Some(cut) = Cut::of(query, total) else { return Ok(Page { rows: Vec::new(), total: total.unsigned_abs() }) };
        filter.extend(values![cut.limit, cut.offset]);
        let is_of_set = set_id.is_some();
        filter.extend(set_id.into_iter().flat_map(|set_id| values![set_id]));
        let rows = self.fetch(&mut tx, page_statement(query.order, cut.direction, is_of_set), filter).await?;
        let mut rows: Vec<_> = rows.iter().filter_map(|row| readable(&Reader::<DB>(row), scope)).collect();
        if cut.direction != query.direction {
            rows.reverse();
        }
        Ok(Page { rows, total: total.unsigned_abs() })
    }
}

/// A row of a list. One that cannot be read is left out and logged: it must not hide the others.
fn readable<DB: Dialect>(row: &Reader<'_, DB>, scope: &Scope) -> Option<CustomCsr> {
    let read = row.custom_csr();
    if let Err(error) = &read {
        let id = row.text("id").unwrap_or_else(|_| "without an ID".to_owned());
        tracing::error!(custom_csr_id = id, %scope, %error, "a custom CSR is left out of its list: its row cannot be read");
    }
    read.ok()
}

/// Which rows of a list make a page, and from which of its ends they are counted: what is passed over is read too, so the nearer one.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    /// Not the query's own where the rows are counted from the far end; then they come in reverse.
    direction: Direction,
    limit: i64,
    offset: i64,
}

impl Cut {
    /// None past the last page of a list of `total` rows.
    fn of(query: &ListQuery, total: i64) -> Option<Self> {
        let per_page = i64::from(query.per_page);
        let offset = i64::from(query.page.saturating_sub(1)) * per_page;
        let limit = per_page.min(total - offset);
        if limit <= 0 {
            return None;
        }
        let after = total - offset - limit;
        // The other orders have their nulls last either way, so one direction is not the other in reverse.
        if query.order == Order::CreatedAt && after < offset {
            return Some(Self { direction: query.direction.reversed(), limit, offset: after });
        }
        Some(Self { direction: query.direction, limit, offset })
    }
}

/// The statement that reads one page.
const fn page_statement(order: Order, direction: Direction, is_of_set: bool) -> Statement {
    match (order, direction, is_of_set) {
        (Order::CreatedAt, Direction::Asc, false) => PAGE_BY_CREATED_AT_ASC,
        (Order::CreatedAt, Direction::Desc, false) => PAGE_BY_CREATED_AT_DESC,
        (Order::Name, Direction::Asc, false) => PAGE_BY_NAME_ASC,
        (Order::Name, Direction::Desc, false) => PAGE_BY_NAME_DESC,
        (Order::AccountTag, Direction::Asc, false) => PAGE_BY_ACCOUNT_ASC,
        (Order::AccountTag, Direction::Desc, false) => PAGE_BY_ACCOUNT_DESC,
        (Order::CreatedAt, Direction::Asc, true) => PAGE_OF_SET_BY_CREATED_AT_ASC,
        (Order::CreatedAt, Direction::Desc, true) => PAGE_OF_SET_BY_CREATED_AT_DESC,
        (Order::Name, Direction::Asc, true) => PAGE_OF_SET_BY_NAME_ASC,
        (Order::Name, Direction::Desc, true) => PAGE_OF_SET_BY_NAME_DESC,
        (Order::AccountTag, Direction::Asc, true) => PAGE_OF_SET_BY_ACCOUNT_ASC,
        (Order::AccountTag, Direction::Desc, true) => PAGE_OF_SET_BY_ACCOUNT_DESC,
    }
}

/// Between the parts of the search text stands a character that no part and no pattern has.
const SEPARATOR: char = '\u{1}';

/// What a list's search looks into: the name, which may be a new one, the common name and the SANs.
pub(super) fn search_text(name: Option<&str>, request: &CustomCsrRequest) -> String {
    let rest = std::iter::once(&request.subject.common_name).chain(&request.sans).map(String::as_str);
    let mut text = name.into_iter().chain(rest).fold(String::new(), |text, part| text + part + SEPARATOR.encode_utf8(&mut [0; 4]));
    text.make_ascii_lowercase();
    text
}

/// A LIKE pattern that takes every character literally. No stored part has control characters, so one in the pattern matches nothing.
fn search_pattern(search: &str) -> String {
    let mut pattern = String::from("%");
    for c in search.chars() {
        match c {
            '%' | '_' | '!' => pattern.extend(['!', c]),
            c if c.is_control() => pattern.push('\u{2}'),
            c => pattern.push(c.to_ascii_lowercase()),
        }
    }
    pattern.push('%');
    pattern
}
