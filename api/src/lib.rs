//! The HTTP side of csrd: routes, authentication, the envelope, the server.

pub mod auth;
pub mod document;
pub mod dto;
pub mod health;
pub mod http;
pub mod idempotency;
pub mod judging;
pub mod routes;
pub mod secret_file;
pub mod state;
pub mod wait;

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use poem::{
    Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Response, Route, get, handler,
    http::{HeaderValue, header},
    middleware::{CatchPanic, PanicHandler},
    web::{Data, Redirect},
};
use serde_json::Value;
use shared::codes::ErrorCode;
use state::AppState;

use crate::http::{
    envelope::{ApiError, from_framework},
    middleware, prefix,
};

/// The document in its forms, rendered once: all responses share the bytes, so that a client that does not read costs nothing.
struct Documents {
    json: Bytes,
    yaml: Bytes,
    swagger_ui: Bytes,
}

/// Everything that answers HTTP requests.
#[must_use]
pub fn app(state: AppState) -> impl Endpoint<Output = Response> {
    let health = Arc::clone(&state.health);
    let service = document::service();
    let document = document::document(&service);
    let documents = Documents {
        json: serde_json::to_vec_pretty(&document).unwrap_or_default().into(),
        yaml: document::yaml(&document).into(),
        swagger_ui: document::swagger_ui(&service, &document).into(),
    };
    let service = Arc::new(service.map_to_response());
    let routes = Route::new()
        .nest(prefix::CANONICAL, Arc::clone(&service))
        .nest(prefix::CLIENT, service)
        .at("/openapi.json", get(openapi_json))
        .at("/openapi.yaml", get(openapi_yaml))
        .at("/docs", get(docs))
        .at("/docs/", get(docs))
        .at("/", get(root))
        .nest_no_strip("/health", health_routes(health))
        .data(Arc::new(state))
        .data(Arc::new(documents));
    surrounded(routes, Methods::of(&document))
}

/// What a process without the API answers: its health.
#[must_use]
pub fn health_app(health: Arc<health::Health>) -> impl Endpoint<Output = Response> {
    surrounded(health_routes(health), Methods::default())
}

fn health_routes(health: Arc<health::Health>) -> impl Endpoint {
    Route::new().at("/health/live", get(health::live)).at("/health/ready", get(health::ready)).data(health)
}

/// What surrounds every route, inner to outer.
fn surrounded<E: IntoEndpoint>(routes: E, methods: Methods) -> impl Endpoint<Output = Response>
where
    E::Endpoint: 'static,
{
    let methods = Arc::new(methods);
    routes
        .with(CatchPanic::new().with_handler(PanicToEnvelope))
        .around(move |endpoint, req| {
            let methods = Arc::clone(&methods);
            async move {
                let path = req.uri().path().to_owned();
                let outcome = endpoint.call(req).await;
                let response = outcome.map_or_else(|error| from_framework(&error, || methods.allowed(&path)), IntoResponse::into_response);
                Ok::<_, poem::Error>(response)
            }
        })
        .around(middleware::with_plain_request)
        .around(middleware::with_request_id)
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

/// The methods of the routes, for `Allow`: each path template of the API, without the prefix, and the value. All other routes are read only.
#[derive(Default)]
struct Methods(Vec<(String, HeaderValue)>);

impl Methods {
    /// As the document has them.
    fn of(document: &Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        let value = |operations: &Value| {
            let has = |method: &str| operations.get(method).is_some();
            // With GET comes HEAD.
            let named = [("get", "GET, HEAD"), ("post", "POST"), ("put", "PUT"), ("patch", "PATCH"), ("delete", "DELETE")];
            let named: Vec<&str> = named.into_iter().filter(|(method, _)| has(method)).map(|(_, name)| name).collect();
            HeaderValue::from_str(&named.join(", ")).ok()
        };
        Self(paths.filter_map(|(path, operations)| Some((path.clone(), value(operations)?))).collect())
    }

    /// The methods of a route that exists. Where several templates fit, the one with the fewest parameters is the route.
    fn allowed(&self, path: &str) -> HeaderValue {
        let path = [prefix::CANONICAL, prefix::CLIENT].iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
        let fits = |template: &str| {
            template.split('/').count() == path.split('/').count()
                && template.split('/').zip(path.split('/')).all(|(wanted, segment)| wanted.starts_with('{') || wanted == segment)
        };
        let fitting = self.0.iter().filter(|(template, _)| fits(template));
        let route = fitting.min_by_key(|(template, _)| template.matches('{').count());
        route.map_or(HeaderValue::from_static("GET, HEAD"), |(_, value)| value.clone())
    }
}

#[handler]
fn openapi_json(Data(documents): Data<&Arc<Documents>>) -> Response {
    document("application/json", &documents.json)
}

/// It may be kept, but is asked for again: an upgrade changes it.
fn document(content_type: &str, body: &Bytes) -> Response {
    Response::builder().content_type(content_type).header(header::CACHE_CONTROL, "no-cache").body(body.clone())
}

#[handler]
fn openapi_yaml(Data(documents): Data<&Arc<Documents>>) -> Response {
    document("application/yaml", &documents.yaml)
}

/// Swagger UI. It may load nothing from elsewhere, call nobody but this service, and stand in no other page: tokens are pasted here.
#[handler]
fn docs(Data(documents): Data<&Arc<Documents>>) -> Response {
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
                  frame-ancestors 'none'";
    let page = document("text/html; charset=utf-8", &documents.swagger_ui);
    page.with_header(header::CONTENT_SECURITY_POLICY, policy).into_response()
}

#[handler]
fn root() -> Redirect {
    Redirect::temporary("/docs")
}
