//! Traces: spans of requests, of storage operations and of jobs, for a collector.
//!
//! They are separate from the log; both have the request's ID. Nothing is recorded before [`begin`]: until then, each function here costs one
//! load. No attribute holds a tenant's ID or name, and the only one that comes from a request is its ID.

mod context;
mod export;
mod sampler;

use std::{borrow::Cow, future::Future, sync::OnceLock};

use opentelemetry::{
    Context, KeyValue,
    trace::{FutureExt, Link, SpanContext, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::SdkTracer;

pub use self::export::Traces;
use crate::{custom_csr::KeyType, ids::Scope};

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Begins to record spans. Later calls change nothing.
fn begin(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

/// Whether spans are recorded.
#[must_use]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// A span, which ends when this is dropped.
#[derive(Debug)]
pub struct Span(Context);

/// The span of the current request, however deep within it.
#[derive(Debug)]
struct Requested(SpanContext);

impl Span {
    fn begin(
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: &Context,
        attributes: Vec<KeyValue>,
        links: Vec<Link>,
    ) -> Option<Self> {
        let tracer = TRACER.get()?;
        let builder = tracer.span_builder(name).with_kind(kind).with_attributes(attributes).with_links(links);
        Some(Self(parent.with_span(builder.start_with_context(tracer, parent))))
    }

    /// The span of a request with this ID, as a child of the span that its client's headers name.
    #[must_use]
    pub fn request(method: &'static str, request_id: String, traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let client = traceparent.and_then(|traceparent| context::parse(traceparent, tracestate));
        let parent = client.map_or_else(Context::new, |client| Context::new().with_remote_span_context(client));
        let attributes = vec![KeyValue::new("http.request.method", method), KeyValue::new("csrd.request_id", request_id)];
        let Self(context) = Self::begin(method, SpanKind::Server, &parent, attributes, Vec::new())?;
        let requested = Requested(context.span().span_context().clone());
        Some(Self(context.with_value(requested)))
    }

    /// The span of a storage operation on this kind of database, if it is within another span: what a process does on a timer is not traced.
    #[must_use]
    pub fn operation(name: &'static str, database: &'static str) -> Option<Self> {
        if !is_on() {
            return None;
        }
        let parent = Context::current();
        if !parent.has_active_span() {
            return None;
        }
        let attributes = vec![KeyValue::new("db.system.name", database), KeyValue::new("db.operation.name", name)];
        Self::begin(name, SpanKind::Client, &parent, attributes, Vec::new())
    }

    /// The span of a job that makes a key for a custom CSR in this scope: a trace of its own, which links to the request that asked for it,
    /// and is recorded if that is.
    #[must_use]
    pub fn generation(scope: &Scope, key_type: KeyType, requested: Option<&str>) -> Option<Self> {
        if !is_on() {
            return None;
        }
        let links = requested.and_then(|requested| context::parse(requested, None)).map(Link::with_context).into_iter().collect();
        let attributes = vec![KeyValue::new("csrd.scope_kind", scope.kind()), KeyValue::new("csrd.key_type", key_type.as_str())];
        Self::begin("generate", SpanKind::Consumer, &Context::new(), attributes, links)
    }

    /// The span of a job that sends an event of this type to a webhook.
    #[must_use]
    pub fn delivery(event: &str) -> Option<Self> {
        if !is_on() {
            return None;
        }
        Self::begin("deliver", SpanKind::Consumer, &Context::new(), vec![KeyValue::new("csrd.event", event.to_owned())], Vec::new())
    }

    /// The request was answered with this status and these codes of errors. The route is a template, or `None` if no route fits.
    pub fn answered(&self, method: &'static str, route: Option<&str>, status: u16, codes: Option<&str>) {
        let span = self.0.span();
        if let Some(route) = route {
            span.update_name(format!("{method} {route}"));
            span.set_attribute(KeyValue::new("http.route", route.to_owned()));
        }
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if let Some(codes) = codes {
            span.set_attribute(KeyValue::new("csrd.error_codes", codes.to_owned()));
        }
        if status >= 500 {
            self.failed(&status.to_string());
        }
    }

    /// Its work ended in an error of this kind.
    pub fn failed(&self, kind: &str) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("error.type", kind.to_owned()));
        span.set_status(Status::error(""));
    }
}

/// Does work, within a span if there is one.
pub async fn within<T>(span: Option<&Span>, work: impl Future<Output = T>) -> T {
    match span {
        Some(Span(context)) => work.with_context(context.clone()).await,
        None => work.await,
    }
}

/// The current job ended in this way.
pub fn ended(outcome: &'static str, is_failure: bool) {
    if !is_on() {
        return;
    }
    Context::map_current(|current| {
        current.span().set_attribute(KeyValue::new("csrd.outcome", outcome));
        if is_failure {
            current.span().set_status(Status::error(""));
        }
    });
}

/// The name of the current request's span, for a job that it enqueues; `None` if spans are not recorded.
#[must_use]
pub fn traceparent() -> Option<String> {
    TRACER.get()?;
    Context::map_current(|current| current.get::<Requested>().map(|Requested(request)| context::traceparent(request)))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TracerProvider};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};

    use super::{sampler::LikeTheLinked, *};
    use crate::testing::zone;

    const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT_RECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn attribute(span: &SpanData, name: &str) -> Option<String> {
        span.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|attribute| attribute.value.to_string())
    }

    #[tokio::test]
    async fn a_request_its_operations_and_its_job_are_joined_and_what_its_client_does_not_record_is_left_out() {
        assert!(Span::request("GET", "r".into(), None, None).is_none(), "nothing is recorded yet");
        assert!(Span::generation(&zone("z"), KeyType::P256v1, None).is_none() && traceparent().is_none());
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_sampler(LikeTheLinked::default()).with_simple_exporter(exporter.clone()).build();
        begin(provider.tracer("csrd"));
        assert!(Span::operation("ping", "sqlite").is_none(), "the storage's own work is no part of anything");
        assert_eq!(traceparent(), None);
        let mut named = Vec::new();
        for client in [CLIENT, NOT_RECORDED] {
            let request = Span::request("POST", "r".into(), Some(client), None);
            let operation = async {
                let operation = Span::operation("accept_custom_csr", "sqlite").unwrap();
                let named = within(Some(&operation), async { traceparent() }).await;
                operation.failed("unavailable");
                named
            };
            named.push(within(request.as_ref(), operation).await.unwrap());
            request.unwrap().answered("POST", Some("/zones/{zone_id}/custom_csrs"), 503, Some("1471"));
        }
        for requested in [Some(&*named[0]), Some(&*named[1]), Some("nonsense"), None] {
            let job = Span::generation(&zone("secret-name"), KeyType::P256v1, requested);
            within(job.as_ref(), async { ended("active", false) }).await;
        }
        let spans = exporter.get_finished_spans().unwrap();
        let [operation, request, job, of_nonsense, unasked] = &spans[..] else { panic!("{spans:#?}") };
        assert_eq!(request.span_context.trace_id().to_string(), CLIENT[3..35]);
        assert_eq!(request.parent_span_id.to_string(), CLIENT[36..52]);
        assert_eq!((&*request.name, &request.status), ("POST /zones/{zone_id}/custom_csrs", &Status::error("")));
        assert_eq!(attribute(request, "csrd.error_codes").unwrap(), "1471");
        assert_eq!((&*operation.name, operation.parent_span_id), ("accept_custom_csr", request.span_context.span_id()));
        assert_eq!(attribute(operation, "error.type").unwrap(), "unavailable");
        let [link] = &job.links.links[..] else { panic!("{job:#?}") };
        assert_eq!(link.span_context.span_id(), request.span_context.span_id());
        assert_eq!(link.span_context.trace_id(), request.span_context.trace_id());
        assert_ne!(job.span_context.trace_id(), request.span_context.trace_id());
        assert_eq!((job.parent_span_id, attribute(job, "csrd.outcome").unwrap()), (SpanId::INVALID, "active".to_owned()));
        assert!(of_nonsense.links.links.is_empty() && unasked.links.links.is_empty());
        assert!(!format!("{spans:?}").contains("secret-name"));
    }
}
