//! The HTTP side of csrd: routes, authentication, the envelope, the server.

pub mod auth;
pub mod custom_certificates;
pub mod custom_csrs;
pub mod docs;
pub mod document;
pub mod grants;
pub mod health;
pub mod http;
pub mod secret_file;
pub mod state;
pub mod webhooks;

use std::{any::Any, sync::Arc};

use poem::{
    Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Response, Route, get,
    middleware::{CatchPanic, PanicHandler},
};
use shared::codes::ErrorCode;
use state::AppState;

use crate::http::{
    allow::Allow,
    body::Intake,
    client::TrustedProxies,
    error::{ApiError, Site, from_framework},
    middleware,
    prefix::{CANONICAL, CLIENT, Prefix},
};

/// Everything that answers HTTP requests.
#[must_use]
pub fn app(state: AppState) -> impl Endpoint<Output = Response> {
    let (health, contact_url) = (Arc::clone(&state.health), state.contact_url.clone());
    let proxies = state.trusted_proxies.clone();
    let service = document::service();
    let docs = docs::routes(&service, state.validator.key_types());
    let service = Arc::new(service.map_to_response());
    let routes = docs
        .nest(CANONICAL, Arc::clone(&service).data(Prefix(CANONICAL)))
        .nest(CLIENT, service.data(Prefix(CLIENT)))
        .nest_no_strip("/health", health_routes(health))
        .data(Arc::clone(&state.authenticator))
        .data(Arc::clone(&state.rate_limits))
        .data(Arc::new(Intake { bytes: Arc::clone(&state.body_bytes), stopping: state.stopping.clone() }))
        .data(Arc::new(state));
    with_middleware(routes, Site { allow: Allow::of(document::operations(), &[CANONICAL, CLIENT]), contact_url }, proxies)
}

/// What a process without the API answers: its health.
#[must_use]
pub fn health_app(health: Arc<health::Health>) -> impl Endpoint<Output = Response> {
    with_middleware(health_routes(health), Site::default(), TrustedProxies::default())
}

fn health_routes(health: Arc<health::Health>) -> impl Endpoint {
    Route::new().at("/health/live", get(health::live)).at("/health/ready", get(health::ready)).data(health)
}

/// Adds what every route needs, inner to outer.
fn with_middleware<E: IntoEndpoint>(routes: E, site: Site, proxies: TrustedProxies) -> impl Endpoint<Output = Response>
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
                let response = outcome.map_or_else(|error| from_framework(&error, uri.path(), &site), IntoResponse::into_response);
                Ok::<_, poem::Error>(response)
            }
        })
        .around(middleware::with_plain_request)
        .around(move |endpoint, req| middleware::with_request_id(endpoint, req, proxies.clone()))
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
