//! What a client may ask of the service, over how many connections, and who a client is.

use std::sync::Arc;

use api::http::{
    client::{Network, TrustedProxies},
    middleware::BODY_LIMIT_BYTES,
    rate_limit::RateLimits,
    server::Options,
    tls::Tls,
};
use clap::Args;
use tokio::sync::Semaphore;

use super::settings::size;

/// More a second than any process answers.
const RATE_MAX: i64 = 1_000_000;

/// Settings of `csrd serve` that bound what one client can do to the others.
#[derive(Args)]
pub struct LimitArgs {
    /// Networks (CIDR) of the proxies in front of the service, with commas between them: from their connections, the client's address is the rightmost one in X-Forwarded-For that is not theirs, and the scheme of links that in X-Forwarded-Proto
    #[arg(long, env = "CSRD_TRUSTED_PROXIES", hide_env_values = true, value_name = "CIDR", value_delimiter = ',')]
    trusted_proxies: Vec<Network>,
    /// Requests a second for one token subject, and twice that at once; beyond it a request is 429/1470; 0 sets no limit
    #[arg(long, env = "CSRD_RATE_LIMIT", hide_env_values = true, value_name = "N", allow_negative_numbers = true, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=RATE_MAX))]
    rate_limit: u32,
    /// Failed authentications a second for one client address, and 50 at once; beyond it a request is 429/1470 before its token is looked at; 0 sets no limit
    #[arg(long, env = "CSRD_AUTH_FAILURE_LIMIT", hide_env_values = true, value_name = "N", allow_negative_numbers = true, default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=RATE_MAX))]
    auth_failure_limit: u32,
    /// Bytes of request bodies that are being read, all together; beyond it a request is 503/1471
    #[arg(long, env = "CSRD_MAX_BODY_BYTES_IN_FLIGHT", hide_env_values = true, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    max_body_bytes_in_flight: usize,
}

impl LimitArgs {
    /// The proxies that say for whom they ask.
    pub fn trusted_proxies(&self) -> TrustedProxies {
        TrustedProxies::new(&self.trusted_proxies)
    }

    /// How often clients may ask.
    pub fn rate_limits(&self) -> Arc<RateLimits> {
        Arc::new(RateLimits::new(self.rate_limit, self.auth_failure_limit))
    }

    /// Warns of a limit under which requests that are allowed cannot come.
    pub fn warn(&self) {
        if self.max_body_bytes_in_flight < BODY_LIMIT_BYTES {
            let most = self.max_body_bytes_in_flight;
            tracing::warn!("bodies of over {most} bytes are always refused with 503: set --max-body-bytes-in-flight to 64KiB or more");
        }
    }

    /// Room for the bodies of requests, in bytes.
    pub fn body_bytes(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.max_body_bytes_in_flight.min(Semaphore::MAX_PERMITS)))
    }
}

/// How many connections there may be.
#[derive(Args)]
pub struct ConnectionArgs {
    /// Connections that may be open; more wait in the listener's queue
    #[arg(long, env = "CSRD_MAX_CONNECTIONS", hide_env_values = true, value_name = "N", allow_negative_numbers = true, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Connections that may be open from one address, unless it is one of --trusted-proxies; more are closed at once
    #[arg(long, env = "CSRD_MAX_CONNECTIONS_PER_ADDRESS", hide_env_values = true, value_name = "N", allow_negative_numbers = true, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections_per_address: u32,
}

impl ConnectionArgs {
    /// The options of the server.
    pub fn options(&self, tls: Option<Arc<Tls>>, trusted_proxies: TrustedProxies) -> Options {
        Options {
            max_connections: self.max_connections as usize,
            max_connections_per_address: self.max_connections_per_address as usize,
            trusted_proxies,
            tls,
        }
    }
}
