//! Serves the OpenAPI document and Swagger UI.

use std::sync::Arc;

use bytes::Bytes;
use poem::{EndpointExt, IntoResponse, Response, Route, get, handler, http::header, web::Data, web::Redirect};
use poem_openapi::{OpenApi, OpenApiService};
use shared::custom_csr::KeyTypes;

use crate::document;

/// The document in its forms, rendered once: all responses share the bytes, so that a client that does not read costs nothing.
struct Documents {
    json: Bytes,
    yaml: Bytes,
    swagger_ui: Bytes,
    codes: Bytes,
}

/// The routes of the document of a service that accepts these key types.
pub fn routes(service: &OpenApiService<impl OpenApi, ()>, key_types: &KeyTypes) -> Route {
    let document = document::document(service, key_types);
    let documents = Arc::new(Documents {
        json: serde_json::to_vec_pretty(&document).unwrap_or_default().into(),
        yaml: document::yaml(&document).into(),
        swagger_ui: document::swagger_ui(service, &document).into(),
        codes: document::codes::page().into(),
    });
    Route::new()
        .at("/openapi.json", get(openapi_json).data(Arc::clone(&documents)))
        .at("/openapi.yaml", get(openapi_yaml).data(Arc::clone(&documents)))
        .at("/docs", get(docs).data(Arc::clone(&documents)))
        .at("/docs/", get(docs).data(Arc::clone(&documents)))
        .at("/docs/codes", get(codes).data(documents))
        .at("/", get(root))
}

#[handler]
fn openapi_json(Data(documents): Data<&Arc<Documents>>) -> Response {
    cached("application/json", &documents.json)
}

#[handler]
fn openapi_yaml(Data(documents): Data<&Arc<Documents>>) -> Response {
    cached("application/yaml", &documents.yaml)
}

/// A response that clients may keep, but must ask for again: an upgrade changes it.
fn cached(content_type: &str, body: &Bytes) -> Response {
    Response::builder().content_type(content_type).header(header::CACHE_CONTROL, "no-cache").body(body.clone())
}

/// Swagger UI. It may load nothing from elsewhere, call nobody but this service, and stand in no other page: tokens are pasted here.
#[handler]
fn docs(Data(documents): Data<&Arc<Documents>>) -> Response {
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
                  frame-ancestors 'none'";
    page(&documents.swagger_ui, policy)
}

/// The codes of errors and warnings.
#[handler]
fn codes(Data(documents): Data<&Arc<Documents>>) -> Response {
    page(&documents.codes, "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'")
}

/// A page that may load and do what this policy says.
fn page(html: &Bytes, policy: &'static str) -> Response {
    cached("text/html; charset=utf-8", html).with_header(header::CONTENT_SECURITY_POLICY, policy).into_response()
}

#[handler]
fn root() -> Redirect {
    Redirect::temporary("/docs")
}
