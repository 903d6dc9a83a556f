//! Renewal policies of zones: one operation a file.

pub mod delete;
pub mod dto;
pub mod get;
pub mod put;

use poem_openapi::OpenApi;

/// All of them.
#[must_use]
pub fn operations() -> impl OpenApi {
    (put::Put, get::Get, delete::Delete)
}
