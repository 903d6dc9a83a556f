//! Sends spans by OTLP over HTTP in the background: they wait in a bounded queue, and are lost if the collector does not take them in time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::{runtime::Handle, time::Instant};
use uuid::Uuid;

use super::sampler::LikeTheLinked;
use crate::outbound::{Outbound, OutboundError, Url};

/// How long one batch may be tried.
const TIME: Duration = Duration::from_secs(10);
/// The log warns of lost spans at most once in this time.
const WARNINGS_APART: Duration = Duration::from_mins(1);
/// The path of spans below an endpoint.
const PATH: &str = "v1/traces";

/// Records spans, and sends them, until [`Traces::end`].
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins to record spans and to send them to this endpoint, batch by batch. Called within the runtime of the process.
    ///
    /// # Errors
    ///
    /// Why nothing can be sent.
    pub fn begin(endpoint: &Url, outbound: Outbound) -> Result<Self, String> {
        let sender = Sender { outbound, runtime: Handle::current(), warned: Mutex::default() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(traces_url(endpoint))
            .with_timeout(TIME)
            .with_http_client(sender);
        let exporter = exporter.build().map_err(|error| error.to_string())?;
        let (version, instance) = (env!("CARGO_PKG_VERSION"), Uuid::now_v7().to_string());
        let attributes = [KeyValue::new("service.version", version), KeyValue::new("service.instance.id", instance)];
        let resource = Resource::builder().with_service_name("csrd").with_attributes(attributes).build();
        let provider = SdkTracerProvider::builder().with_sampler(LikeTheLinked::default()).with_batch_exporter(exporter);
        let provider = provider.with_resource(resource).build();
        super::begin(provider.tracer("csrd"));
        Ok(Self(provider))
    }

    /// Sends what is left, for at most this time. It blocks the thread.
    pub fn end(self, time: Duration) {
        if self.0.shutdown_with_timeout(time).is_err() {
            tracing::debug!("the last spans were not sent");
        }
    }
}

/// The URL for spans: an endpoint is the base of all signals, unless it already has the path of this one.
fn traces_url(endpoint: &Url) -> String {
    let base = endpoint.as_str().trim_end_matches('/');
    if base.ends_with(PATH) { base.to_owned() } else { format!("{base}/{PATH}") }
}

/// Sends requests on the runtime of the process, since the thread that sends batches has none.
#[derive(Debug)]
struct Sender {
    outbound: Outbound,
    runtime: Handle,
    warned: Mutex<Option<Instant>>,
}

impl Sender {
    /// Warns now and then that spans are lost.
    fn warn(&self, reason: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARNINGS_APART) {
            *warned = Some(Instant::now());
            tracing::warn!(reason, "spans are lost: --otlp-endpoint did not take them");
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let (url, outbound): (Url, _) = (head.uri.to_string().parse()?, self.outbound.clone());
        let sent = self.runtime.spawn(async move { outbound.post_bytes(&url, head.headers, body).await }).await?;
        let status = sent.inspect_err(|error: &OutboundError| self.warn(&error.to_string()))?;
        if !(200..300).contains(&status) {
            self.warn(&format!("the answer has the status {status}"));
        }
        Ok(Response::builder().status(status).body(Bytes::new())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_the_base_of_all_signals_or_that_of_traces() {
        for (endpoint, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://o.example/otlp", "https://o.example/otlp/v1/traces"),
            ("https://o.example/v1/traces", "https://o.example/v1/traces"),
        ] {
            assert_eq!(traces_url(&endpoint.parse().unwrap()), url);
        }
    }
}
