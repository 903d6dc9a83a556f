//! What a client may ask of the service, and who a client is.

use std::sync::Arc;

use api::http::client::{Network, TrustedProxies};
use clap::Args;
use tokio::sync::Semaphore;

use super::settings::size;

/// Settings of `csrd serve` that bound what one client can do to the others.
#[derive(Args)]
pub struct LimitArgs {
    /// Networks (CIDR) of the proxies in front of the service, with commas between them: from their connections, the client's address is the rightmost one in X-Forwarded-For that is not theirs
    #[arg(long, env = "CSRD_TRUSTED_PROXIES", hide_env_values = true, value_name = "CIDR", value_delimiter = ',')]
    trusted_proxies: Vec<Network>,
    /// Bytes of request bodies that are being read, all together; beyond it a request is 503/1471
    #[arg(long, env = "CSRD_MAX_BODY_BYTES_IN_FLIGHT", hide_env_values = true, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    max_body_bytes_in_flight: usize,
}

impl LimitArgs {
    /// The proxies that say for whom they ask.
    pub fn trusted_proxies(&self) -> TrustedProxies {
        TrustedProxies::new(&self.trusted_proxies)
    }

    /// Room for the bodies of requests, in bytes.
    pub fn body_bytes(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.max_body_bytes_in_flight.min(Semaphore::MAX_PERMITS)))
    }
}
