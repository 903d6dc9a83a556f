//! Settings of hand-over links.

use super::template::Template;

/// Settings of hand-over links.
#[derive(Debug, Default)]
pub struct Settings {
    /// The URL that links begin with, without a slash at the end; if absent, that of the request that makes the link.
    pub public_url: Option<String>,
    /// The page.
    pub template: Template,
}
