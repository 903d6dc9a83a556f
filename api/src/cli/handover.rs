//! Settings of hand-over links.

use std::path::PathBuf;

use api::{
    handovers::template::Template,
    secret_file::{self, Content},
};
use clap::Args;

use super::bad_setting;

/// The look of the pages of hand-over links.
#[derive(Args)]
pub struct HandoverArgs {
    /// A page of your own for hand-over links, in the syntax of Jinja
    #[arg(long, env = "CSRD_HANDOVER_TEMPLATE", hide_env_values = true, value_name = "FILE")]
    handover_template: Option<PathBuf>,
}

impl HandoverArgs {
    /// The page from the file, or the built-in one.
    pub fn template(&self) -> anyhow::Result<Template> {
        let Some(path) = &self.handover_template else { return Ok(Template::default()) };
        let bytes = secret_file::read(path, Content::Public).map_err(|error| bad_setting(format!("--handover-template: {error}")))?;
        let bad = |error: &str| bad_setting(format!("--handover-template: {}: {error}", path.display()));
        let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is not text in UTF-8"))?;
        Template::parse(text).map_err(|error| bad(&error.to_string()))
    }
}
