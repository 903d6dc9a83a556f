//! Hand-over links: whoever has one can read one custom CSR and bring one certificate for it, without an account. One operation a file, and
//! the page of a link.

mod answers;
mod certificate;
pub mod create;
pub mod dto;
pub mod form;
mod link;
pub mod list;
pub mod page;
pub mod revoke;
pub mod settings;
pub mod template;

use poem_openapi::OpenApi;

/// Those below a zone.
#[must_use]
pub fn operations() -> impl OpenApi {
    (create::Create, list::List, revoke::Revoke)
}
