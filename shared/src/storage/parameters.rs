//! What goes into the larger statements.

use super::{
    NewCustomCsr,
    value::{Value, values},
};
use crate::{clock::Timestamp, error::StoreError, ids::TenantId, model::CustomCsrRequest};

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
            '%' | '_' | '\\' => pattern.extend(['\\', c]),
            c if c.is_control() => pattern.push('\u{2}'),
            c => pattern.push(c.to_ascii_lowercase()),
        }
    }
    pattern.push('%');
    pattern
}
