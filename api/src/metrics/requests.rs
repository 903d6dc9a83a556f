//! Counts and times requests, and gives them spans.

use std::{collections::HashMap, sync::Arc};

use poem::{Endpoint, IntoResponse, PathPattern, Request, Response, http::Method};
use poem_openapi::OpenApi;
use shared::{
    metrics::metrics,
    trace::{self, Span},
};
use tokio::time::Instant;

use crate::http::{error::Told, middleware::RequestId};

/// The route of requests that have none.
const NO_ROUTE: &str = "none";

/// The template that the document has for each pattern of the router's: poem-openapi gives parameters other names there.
#[derive(Default)]
pub struct Templates(HashMap<String, Arc<str>>);

impl Templates {
    /// Of these operations, below each of these prefixes.
    pub fn of<O: OpenApi>(operations: O, prefixes: &[&str]) -> Self {
        let mut routes = HashMap::new();
        operations.add_routes(&mut routes);
        let templates: HashMap<_, _> = O::meta().into_iter().flat_map(|api| api.paths).map(|path| (shape(&path.path), path.path)).collect();
        let known = routes.keys().filter_map(|pattern| Some((pattern, templates.get(&shape(pattern))?)));
        let below = |(pattern, template): (&String, &String)| {
            let below: Vec<_> =
                prefixes.iter().map(|prefix| (format!("{prefix}{pattern}"), format!("{prefix}{template}").into())).collect();
            below
        };
        Self(known.flat_map(below).collect())
    }

    /// The template of the route that answered.
    fn route(&self, response: &Response) -> Arc<str> {
        self.known_route(response).unwrap_or_else(|| NO_ROUTE.into())
    }

    fn known_route(&self, response: &Response) -> Option<Arc<str>> {
        let PathPattern(pattern) = response.data::<PathPattern>()?;
        // The routes of pages are not in the document.
        Some(
            self.0
                .get(&**pattern)
                .map_or_else(|| if pattern.contains(':') { braced(pattern).into() } else { Arc::clone(pattern) }, Arc::clone),
        )
    }
}

/// A pattern with its parameters in braces, as templates have them.
fn braced(pattern: &str) -> String {
    let braced =
        pattern.split('/').map(|segment| segment.strip_prefix(':').map_or_else(|| segment.to_owned(), |name| format!("{{{name}}}")));
    braced.collect::<Vec<_>>().join("/")
}

/// A pattern or a template without the names of its parameters.
fn shape(path: &str) -> String {
    path.split('/').map(|segment| if segment.starts_with([':', '{']) { ":" } else { segment }).collect::<Vec<_>>().join("/")
}

/// Counts and times every request if metrics are on, and gives it a span if traces are.
pub async fn observed<E: Endpoint>(endpoint: Arc<E>, req: Request, templates: Arc<Templates>) -> poem::Result<Response> {
    let method = word(req.method());
    let Some(span) = span_of(&req, method) else { return counted(endpoint, req, &templates).await };
    let response = trace::within(Some(&span), counted(endpoint, req, &templates)).await?;
    let (route, codes) = (templates.known_route(&response), response.extensions().get::<Told>().and_then(|told| told.codes.as_deref()));
    span.answered(method, route.as_deref(), response.status().as_u16(), codes);
    Ok(response)
}

/// The span of a request, if traces are on. Health probes have none: they come every few seconds.
fn span_of(req: &Request, method: &'static str) -> Option<Span> {
    if !trace::is_on() || req.uri().path().starts_with("/health/") {
        return None;
    }
    let id = req.extensions().get().map(|RequestId(id)| id.clone()).unwrap_or_default();
    let header = |name: &str| {
        let mut values = req.headers().get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    Span::request(method, id, header("traceparent"), header("tracestate"))
}

async fn counted<E: Endpoint>(endpoint: Arc<E>, req: Request, templates: &Templates) -> poem::Result<Response> {
    let Some(metrics) = metrics() else { return Ok(endpoint.call(req).await?.into_response()) };
    let (method, began, _in_flight) = (word(req.method()), Instant::now(), metrics.request_began());
    let response = endpoint.get_response(req).await;
    let codes = response.extensions().get::<Told>().and_then(|told| told.codes.as_deref());
    let codes = codes.into_iter().flat_map(|codes| codes.split(',')).filter_map(|code| code.parse().ok());
    metrics.request_answered(templates.route(&response), method, response.status().as_u16(), began.elapsed(), codes);
    Ok(response)
}

/// A method that routes have, or a word for all others: clients may invent any number of them.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        document,
        http::prefix::{CANONICAL, CLIENT},
    };

    #[test]
    fn the_route_of_a_page_has_its_parameters_in_braces() {
        assert_eq!(braced("/handover/:secret/csr"), "/handover/{secret}/csr");
    }

    #[test]
    fn every_route_of_the_api_has_the_template_of_the_document_below_each_prefix() {
        let templates = Templates::of(document::operations(), &[CANONICAL, CLIENT]);
        let mut routes = HashMap::new();
        document::operations().add_routes(&mut routes);
        assert_eq!(templates.0.len(), routes.len() * 2);
        assert!(templates.0.values().any(|template| **template == *"/client/v4/zones/{zone_id}/custom_csrs/{custom_csr_id}"));
        for template in templates.0.values() {
            assert!(!template.contains([':', '*']) && !template.contains("param"), "{template}");
        }
    }
}
