//! What goes into the larger statements.

use super::{
    GeneratedCsr, NewCustomCsr,
    value::{Value, values},
};
use crate::{
    clock::Timestamp,
    error::StoreError,
    ids::{CustomCsrId, TenantId},
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
        search_text(new),
        job_id,
    ])
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

fn search_text(new: &NewCustomCsr) -> String {
    let parts = new.request.name.iter().chain([&new.request.subject.common_name]).chain(&new.request.sans);
    let mut text = parts.fold(String::new(), |text, part| text + part + SEPARATOR.encode_utf8(&mut [0; 4]));
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
