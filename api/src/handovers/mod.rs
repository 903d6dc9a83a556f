//! Hand-over links: whoever has one reads one custom CSR and brings one certificate for it, without an account. One operation a file, and
//! the page that a link leads to.

mod answers;
mod certificate;
pub mod create;
pub mod dto;
pub mod form;
mod link;
pub mod list;
pub mod page;
pub mod revoke;
pub mod template;

use poem_openapi::OpenApi;

/// Those below a zone.
#[must_use]
pub fn operations() -> impl OpenApi {
    (create::Create, list::List, revoke::Revoke)
}

/// What hand-over links need to know of the service.
#[derive(Debug, Default)]
pub struct Settings {
    /// Where the links lead, without a slash at the end; if absent, where the request that makes one was sent.
    pub public_url: Option<String>,
    /// The page.
    pub template: template::Template,
}
