//! Settings of hand-over links.

use super::template::Template;

/// What hand-over links need to know of the service.
#[derive(Debug, Default)]
pub struct Settings {
    /// Where the links lead, without a slash at the end; if absent, where the request that makes one was sent.
    pub public_url: Option<String>,
    /// The page.
    pub template: Template,
}
