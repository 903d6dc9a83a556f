//! Custom CSRs of zones and of accounts: one operation a file.

pub mod accept;
pub mod create;
pub mod delete;
pub mod dto;
pub mod edit;
pub mod find;
pub mod get;
pub mod list;
pub mod not_active;
pub mod quota;
pub mod rekey;
pub mod restore;
pub mod wait;

#[cfg(test)]
mod written;

use poem_openapi::OpenApi;

/// All of them.
#[must_use]
pub fn operations() -> impl OpenApi {
    (create::Create, list::List, quota::GetQuota, get::Get, edit::Edit, delete::Delete, rekey::Rekey, restore::Restore)
}
