//! Requests that the service sends itself.

use std::path::PathBuf;

use api::{
    outbound::Outbound,
    secret_file::{self, Content},
};
use clap::Args;

use super::bad_setting;

/// Whom it trusts.
#[derive(Args)]
pub struct OutboundArgs {
    /// Root certificates (PEM) that the service trusts, beside the system's, where it sends requests itself
    #[arg(long, env = "CSRD_OUTBOUND_CA_FILE", hide_env_values = true, value_name = "FILE")]
    outbound_ca_file: Option<PathBuf>,
}

impl OutboundArgs {
    /// Refuses a file that could not be used, where nothing is sent now.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.outbound_ca_file.is_some() { self.client().map(drop) } else { Ok(()) }
    }

    /// What sends the requests.
    pub fn client(&self) -> anyhow::Result<Outbound> {
        let Some(path) = &self.outbound_ca_file else {
            let advice = "install the system's root certificates (ca-certificates), or give --outbound-ca-file";
            return Outbound::new(None).map_err(|error| bad_setting(format!("--jwt-jwks-url: {error}: {advice}")));
        };
        let pem = secret_file::read(path, Content::Public).map_err(|error| bad_setting(format!("--outbound-ca-file: {error}")))?;
        Outbound::new(Some(&pem)).map_err(|error| bad_setting(format!("--outbound-ca-file: {}: {error}", path.display())))
    }
}
