//! The HTTP side of csrd: routes, authentication, the envelope, the server.

pub mod auth;
pub mod custom_certificates;
pub mod custom_csrs;
pub mod docs;
pub mod document;
pub mod grants;
pub mod handovers;
pub mod health;
pub mod http;
pub mod metrics;
pub mod renewals;
pub mod secret_file;
pub mod state;
pub mod webhooks;

use std::{any::Any, sync::Arc};

use poem::{
    Endpoint, EndpointExt, IntoEndpoint, IntoResponse, PathPattern, Response, Route, get,
    middleware::{CatchPanic, PanicHandler},
};
use shared::{codes::ErrorCode, handover};
use state::AppState;

use crate::http::{
    allow::Allow,
    body::Intake,
    client::TrustedProxies,
    cors::{Origins, with_cors},
    error::{ApiError, Site, from_framework},
    middleware,
    prefix::{CANONICAL, CLIENT, Prefix},
};

/// Everything that answers HTTP requests.
#[must_use]
pub fn app(state: AppState) -> impl Endpoint<Output = Response> {
    let (health, contact_url) = (Arc::clone(&state.health), state.contact_url.clone());
    let (proxies, origins) = (state.trusted_proxies.clone(), state.cors_origins.clone());
    let service = document::service();
    let docs = docs::routes(&service, state.validator.key_types());
    let service = Arc::new(service.map_to_response());
    let routes = docs
        .nest(CANONICAL, Arc::clone(&service).data(Prefix(CANONICAL)))
        .nest(CLIENT, service.data(Prefix(CLIENT)))
        .nest(handover::PATH, handovers::page::routes())
        .nest_no_strip("/health", health_routes(health))
        .data(Arc::clone(&state.authenticator))
        .data(Arc::clone(&state.rate_limits))
        .data(Arc::new(Intake { bytes: Arc::clone(&state.body_bytes), stopping: state.stopping.clone() }))
        .data(Arc::new(state));
    let site = Site { allow: Allow::of(document::operations(), &[CANONICAL, CLIENT]), contact_url };
    let observed = shared::metrics::metrics().is_some() || shared::trace::is_on();
    let templates = observed.then(|| metrics::Templates::of(document::operations(), &[CANONICAL, CLIENT]));
    with_middleware(routes, site, templates.unwrap_or_default(), proxies, origins)
}

/// What a process without the API answers: its health.
#[must_use]
pub fn health_app(health: Arc<health::Health>) -> impl Endpoint<Output = Response> {
    with_middleware(health_routes(health), Site::default(), metrics::Templates::default(), TrustedProxies::default(), Origins::default())
}

fn health_routes(health: Arc<health::Health>) -> impl Endpoint {
    Route::new().at("/health/live", get(health::live)).at("/health/ready", get(health::ready)).data(health)
}

/// What answers those who scrape the metrics. Their requests are not among those that are counted.
#[must_use]
pub fn metrics_app(sources: Arc<metrics::Sources>) -> impl Endpoint<Output = Response> {
    let routes = Route::new().at("/metrics", get(metrics::scrape)).data(sources);
    with_envelope(routes, Site::default()).around(|endpoint, req| middleware::with_request_id(endpoint, req, TrustedProxies::default()))
}

/// Adds what every route needs, inner to outer.
fn with_middleware<E: IntoEndpoint + 'static>(
    routes: E,
    site: Site,
    templates: metrics::Templates,
    proxies: TrustedProxies,
    origins: Origins,
) -> impl Endpoint<Output = Response>
where
    E::Endpoint: 'static,
{
    let templates = Arc::new(templates);
    with_envelope(routes, site)
        .around(move |endpoint, req| with_cors(endpoint, req, origins.clone()))
        .around(move |endpoint, req| metrics::observed(endpoint, req, Arc::clone(&templates)))
        .around(move |endpoint, req| middleware::with_request_id(endpoint, req, proxies.clone()))
        // Its type has hundreds of parts, too many for those who name it.
        .boxed()
}

/// Refuses what is not sound, and puts whatever goes wrong into the envelope.
fn with_envelope<E: IntoEndpoint + 'static>(routes: E, site: Site) -> impl Endpoint<Output = Response>
where
    E::Endpoint: 'static,
{
    let site = Arc::new(site);
    routes
        .with(CatchPanic::new().with_handler(PanicToEnvelope))
        .around(move |endpoint, req| {
            let (site, uri) = (Arc::clone(&site), req.uri().clone());
            async move {
                let outcome = endpoint.call(req).await;
                let response = outcome.map_or_else(|error| refused(&error, uri.path(), &site), IntoResponse::into_response);
                Ok::<_, poem::Error>(response)
            }
        })
        .around(middleware::with_plain_request)
}

/// The answer to an error, which keeps the route that it came from.
fn refused(error: &poem::Error, path: &str, site: &Site) -> Response {
    let mut response = from_framework(error, path, site);
    if let Some(route) = error.data::<PathPattern>() {
        response.set_data(route.clone());
    }
    response
}

/// The panic hook has logged where it was; the client reads 1500.
#[derive(Clone)]
struct PanicToEnvelope;

impl PanicHandler for PanicToEnvelope {
    type Response = ApiError;

    fn get_response(&self, _: Box<dyn Any + Send + 'static>) -> ApiError {
        ErrorCode::Internal.into()
    }
}
