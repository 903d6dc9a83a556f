//! Settings of traces.

use clap::Args;
use shared::{outbound::Url, trace::Traces};

use super::{bad_setting, outbound::OutboundArgs};

const ENDPOINT: &str = "--otlp-endpoint";

/// The collector of traces.
#[derive(Args)]
pub struct TraceArgs {
    /// Where to send traces by OTLP over HTTP, such as `http://127.0.0.1:4318`; without it, none are sent
    #[arg(long, env = "CSRD_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL", value_parser = endpoint)]
    otlp_endpoint: Option<Url>,
}

impl TraceArgs {
    /// Begins to record and to send spans, or returns `None` without an endpoint: then no spans are recorded.
    pub fn begin(&self, outbound: &OutboundArgs) -> anyhow::Result<Option<Traces>> {
        let Some(endpoint) = &self.otlp_endpoint else { return Ok(None) };
        let traces = Traces::begin(endpoint, outbound.client(ENDPOINT)?);
        Ok(Some(traces.map_err(|error| bad_setting(format!("{ENDPOINT}: {error}")))?))
    }
}

/// Parses the base of a collector's URLs. Secrets belong in a header, since a process list shows this URL.
fn endpoint(text: &str) -> Result<Url, String> {
    let expected = || "write an http or https URL without a user, a password or a query, such as http://127.0.0.1:4318".to_owned();
    let url: Url = text.parse().map_err(|_| expected())?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if is_web && is_plain { Ok(url) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_secrets() {
        for url in ["http://127.0.0.1:4318", "https://otlp.example/base/", "http://[::1]:4318", "http://collector:4318/v1/traces"] {
            assert!(endpoint(url).is_ok(), "{url}");
        }
        for other in [
            "",
            "127.0.0.1:4318",
            "grpc://a.example",
            "https://",
            "https://u@a.example",
            "https://u:p@a.example",
            "https://a.example?key=x",
            "https://a.example#x",
        ] {
            assert!(endpoint(other).is_err(), "{other}");
        }
    }
}
