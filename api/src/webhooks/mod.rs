//! Webhooks of zones and of accounts: one operation a file.

pub mod create;
pub mod delete;
pub mod deliveries;
pub mod dto;
pub mod edit;
pub mod get;
pub mod list;
pub mod ping;

use poem_openapi::OpenApi;

/// All of them.
#[must_use]
pub fn operations() -> impl OpenApi {
    (create::Create, list::List, get::Get, edit::Edit, delete::Delete, ping::Ping, deliveries::ListDeliveries)
}
