//! Custom certificates: what comes back from the CA, checked and kept with the custom CSR that it is for. They lie in zones; an account sees
//! those that use its custom CSRs. One operation a file.

pub mod checking;
pub mod delete;
pub mod dry_run;
pub mod dto;
pub mod find;
pub mod get;
pub mod list;
pub mod matcher;
pub mod refused;
pub mod replace;
pub mod upload;

#[cfg(test)]
mod written;

use poem_openapi::OpenApi;

use crate::http::worded::WithAccountWords;

/// Those below a zone.
#[must_use]
pub fn of_zones() -> impl OpenApi {
    (upload::Upload, list::List, get::Get, replace::Replace, delete::Delete)
}

/// Those below an account.
#[must_use]
pub fn of_accounts() -> impl OpenApi {
    (WithAccountWords(list::List), WithAccountWords(get::Get), WithAccountWords(delete::Delete))
}
