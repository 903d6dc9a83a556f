//! What goes into the larger statements, and which one it is.

use super::{
    Direction, GeneratedCsr, ListQuery, NewCustomCsr, Order, statements as sql,
    value::{Value, values},
};
use crate::{
    clock::Timestamp,
    custom_csr::CustomCsrRequest,
    ids::{CustomCsrId, TenantId},
    storage::StoreError,
};

/// The parameters of the statement that inserts a custom CSR.
pub(super) fn insert_values(
    new: &NewCustomCsr,
    account: Option<&TenantId>,
    job_id: &str,
    now: Timestamp,
) -> Result<Vec<Value>, StoreError> {
    let request = &new.request;
    let subject = &request.subject;
    let sans = serde_json::to_string(&request.sans).map_err(|error| StoreError::Internal(error.to_string()))?;
    Ok(values![
        new.id.to_string(),
        new.scope.to_string(),
        account.map(ToString::to_string),
        now.micros(),
        subject.country.clone(),
        subject.state.clone(),
        subject.locality.clone(),
        subject.organization.clone(),
        subject.organizational_unit.clone(),
        subject.common_name.clone(),
        request.name.clone(),
        request.description.clone(),
        sans,
        request.key_type.as_str(),
        search_text(request.name.as_deref(), request),
        job_id,
        new.replaces.map(|id| id.to_string()),
    ])
}

/// Which rows of a list make a page, and from which of its ends they are counted: what is passed over is read too, so the nearer one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Not the query's own where the rows are counted from the far end; then they come in reverse.
    pub direction: Direction,
    pub limit: i64,
    pub offset: i64,
}

impl Cut {
    /// None past the last page of a list of `total` rows.
    pub fn of(query: &ListQuery, total: i64) -> Option<Self> {
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
pub(super) const fn page_statement(order: Order, direction: Direction) -> &'static str {
    match (order, direction) {
        (Order::CreatedAt, Direction::Asc) => sql::PAGE_BY_CREATED_AT_ASC,
        (Order::CreatedAt, Direction::Desc) => sql::PAGE_BY_CREATED_AT_DESC,
        (Order::Name, Direction::Asc) => sql::PAGE_BY_NAME_ASC,
        (Order::Name, Direction::Desc) => sql::PAGE_BY_NAME_DESC,
        (Order::AccountTag, Direction::Asc) => sql::PAGE_BY_ACCOUNT_ASC,
        (Order::AccountTag, Direction::Desc) => sql::PAGE_BY_ACCOUNT_DESC,
    }
}

/// The parameters of the statement that makes a custom CSR active.
pub(super) fn complete_values(id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Vec<Value> {
    values![
        id.to_string(),
        made.csr_pem.clone(),
        made.spki_sha256.to_vec(),
        made.master_key_id.clone(),
        made.sealed_private_key.clone(),
        now.micros(),
    ]
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
pub(super) fn search_pattern(search: &str) -> String {
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
