//! What a client may ask of the service, and who a client is.

use api::http::client::{Network, TrustedProxies};
use clap::Args;

/// Settings of `csrd serve` that bound what one client can do to the others.
#[derive(Args)]
pub struct LimitArgs {
    /// Networks (CIDR) of the proxies in front of the service, with commas between them: from their connections, the client's address is the rightmost one in X-Forwarded-For that is not theirs
    #[arg(long, env = "CSRD_TRUSTED_PROXIES", hide_env_values = true, value_name = "CIDR", value_delimiter = ',')]
    trusted_proxies: Vec<Network>,
}

impl LimitArgs {
    /// The proxies that say for whom they ask.
    pub fn trusted_proxies(&self) -> TrustedProxies {
        TrustedProxies::new(&self.trusted_proxies)
    }
}
