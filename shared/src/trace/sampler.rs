//! Which traces are recorded.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{Config, SamplingDecision, SamplingResult, ShouldSample};

/// Follows a parent or a link: a request is recorded if its client's span is, and a job if its request's span is. For all others,
/// OpenTelemetry's variables decide (`OTEL_TRACES_SAMPLER`); by default all are recorded.
#[derive(Debug, Clone)]
pub struct LikeTheLinked {
    others: Box<dyn ShouldSample>,
}

impl Default for LikeTheLinked {
    fn default() -> Self {
        Self { others: Config::default().sampler }
    }
}

impl ShouldSample for LikeTheLinked {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let is_root = !parent.is_some_and(TraceContextExt::has_active_span);
        let Some(link) = links.first().filter(|_| is_root) else {
            return self.others.should_sample(parent, trace_id, name, kind, attributes, links);
        };
        let decision = if link.span_context.is_sampled() { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::default() }
    }
}
