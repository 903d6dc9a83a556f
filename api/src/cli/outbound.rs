//! Settings of requests that the service sends itself.

use std::path::PathBuf;

use api::secret_file::{self, Content};
use clap::{Args, builder::BoolishValueParser};
use shared::outbound::{Outbound, OutboundSettings, Reach};

use super::bad_setting;

/// Whom it trusts, and where it goes.
#[derive(Args)]
pub struct OutboundArgs {
    /// Root certificates (PEM) that the service trusts, beside the system's, where it sends requests itself
    #[arg(long, env = "CSRD_OUTBOUND_CA_FILE", hide_env_values = true, value_name = "FILE")]
    outbound_ca_file: Option<PathBuf>,
    /// Let webhooks and --ari-directories lead to private and other special addresses, and to a loopback address without TLS
    #[arg(long, env = "CSRD_OUTBOUND_ALLOW_PRIVATE", hide_env_values = true, value_parser = BoolishValueParser::new())]
    outbound_allow_private: bool,
}

impl OutboundArgs {
    /// The client for the operator's own requests, which this setting asks for. They may go to any address.
    pub fn client(&self, setting: &str) -> anyhow::Result<Outbound> {
        let Some(path) = &self.outbound_ca_file else {
            let advice = "install the system's root certificates (ca-certificates), or give --outbound-ca-file";
            return Outbound::new(None, Reach::Anywhere).map_err(|error| bad_setting(format!("{setting}: {error}: {advice}")));
        };
        let pem = secret_file::read(path, Content::Public).map_err(|error| bad_setting(format!("--outbound-ca-file: {error}")))?;
        Outbound::new(Some(&pem), Reach::Anywhere).map_err(|error| bad_setting(format!("--outbound-ca-file: {}: {error}", path.display())))
    }

    /// Where requests may go that tenants ask for.
    pub const fn reach(&self) -> Reach {
        if self.outbound_allow_private { Reach::Anywhere } else { Reach::Public }
    }

    /// How requests are sent that tenants ask for. A file that could not be used is refused now.
    pub fn settings(&self) -> anyhow::Result<OutboundSettings> {
        if self.outbound_ca_file.is_some() {
            self.client("--outbound-ca-file")?;
        }
        let pem = self.outbound_ca_file.as_ref().map(|path| secret_file::read(path, Content::Public));
        let ca_pem = pem.transpose().map_err(|error| bad_setting(format!("--outbound-ca-file: {error}")))?;
        Ok(OutboundSettings { ca_pem: ca_pem.map(|pem| pem.to_vec()), reach: self.reach() })
    }
}
