//! Settings for the names that are accepted.

use std::path::{Path, PathBuf};

use api::secret_file::{self, Content};
use clap::{Args, builder::BoolishValueParser};
use shared::names::{public_suffix::SuffixList, san::SanPolicy};

use super::bad_setting;

/// Which names custom CSRs may have.
#[derive(Args)]
pub struct NameArgs {
    /// Let SANs begin with one `*.`
    #[arg(long, env = "CSRD_ALLOW_WILDCARD_SANS", hide_env_values = true, value_parser = BoolishValueParser::new())]
    allow_wildcard_sans: bool,
    /// A newer public suffix list than the embedded one
    #[arg(long, env = "CSRD_PUBLIC_SUFFIX_LIST", hide_env_values = true, value_name = "FILE")]
    public_suffix_list: Option<PathBuf>,
}

impl NameArgs {
    /// The policy of these settings.
    pub fn policy(&self) -> anyhow::Result<SanPolicy> {
        Ok(SanPolicy { allow_wildcards: self.allow_wildcard_sans, suffixes: suffix_list(self.public_suffix_list.as_deref())? })
    }
}

/// If the list is refused, the embedded one is used: a broken update must not stop the service.
fn suffix_list(path: Option<&Path>) -> anyhow::Result<SuffixList> {
    let Some(path) = path else { return Ok(SuffixList::embedded()) };
    let bytes = secret_file::read(path, Content::Public).map_err(|error| bad_setting(format!("--public-suffix-list: {error}")))?;
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|_| bad_setting(format!("--public-suffix-list: {}: it is not text in UTF-8", path.display())))?;
    match SuffixList::parse(text) {
        Ok(list) => Ok(list),
        Err(error) => {
            tracing::error!("--public-suffix-list: {} {error}: refused, the embedded list stays", path.display());
            Ok(SuffixList::embedded())
        }
    }
}
