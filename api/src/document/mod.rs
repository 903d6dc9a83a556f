//! The OpenAPI document: generated from the operations, then put right.
//!
//! It is valid 3.0.3 in the end, and has what the types of operations cannot say: one file each.

use poem_openapi::{OpenApi, OpenApiService};
use serde_json::{Value, json};
use shared::custom_csr::KeyTypes;

use crate::{
    custom_certificates, custom_csrs, handovers,
    http::{
        mounted::{Account, Zone, mount},
        prefix::{CANONICAL, CLIENT},
    },
    renewals, webhooks,
};

pub mod codes;
mod errors;
mod examples;
mod headers;
mod links;
mod mend;
mod share;
mod tags;

const DESCRIPTION: &str =
    "Makes private keys and certificate signing requests (CSRs) for the tenants of a platform; the private key never \
leaves the service. The API is that of Cloudflare's custom CSRs: existing clients work with another base URL (`/client/v4` answers like \
`/api/v4`).

Create a custom CSR, read it until its `status` is no longer `pending`, have a CA sign its `csr`, and upload the certificate. \
Every request needs a token: `csrd token issue --zone demo` makes one where the service runs; press *Authorize* and paste it.

Every answer has `success`, `errors`, `messages` (warnings and hints) and `result`, and may gain members: let clients ignore unknown ones. \
[All codes of errors and warnings](/docs/codes) have a page of their own.";
/// What Swagger UI calls itself.
const UI_TITLE: &str = "<title>Swagger UI</title>";
/// The title of our page; an icon would be asked for otherwise.
const TITLE: &str = "<title>csrd API</title>\n    <link rel=\"icon\" href=\"data:,\">";

/// The last setting of Swagger UI.
const UI_SETTINGS: &str = "deepLinking: true,\n";
/// Keeps a pasted token when the page is reloaded. Swagger UI's own setting would keep it on disk, for every tab, and after the browser is
/// closed.
const AUTHORIZATION: &str = include_str!("authorization.js");

/// All operations, each where it is mounted.
#[must_use]
pub fn operations() -> impl OpenApi {
    (
        mount::<Zone, _>(custom_csrs::operations()),
        mount::<Account, _>(custom_csrs::operations()),
        mount::<Zone, _>(custom_certificates::of_zones()),
        mount::<Account, _>(custom_certificates::of_accounts()),
        mount::<Zone, _>(webhooks::operations()),
        mount::<Account, _>(webhooks::operations()),
        mount::<Zone, _>(handovers::operations()),
        mount::<Zone, _>(renewals::operations()),
    )
}

/// The service around the operations.
#[must_use]
pub fn service() -> OpenApiService<impl OpenApi, ()> {
    OpenApiService::new(operations(), "csrd", env!("CARGO_PKG_VERSION")).server(CANONICAL)
}

/// The document of a service that accepts these key types.
#[must_use]
pub fn document(service: &OpenApiService<impl OpenApi, ()>, key_types: &KeyTypes) -> Value {
    let mut document: Value = serde_json::from_str(&service.spec()).unwrap_or_default();
    mend::mend(&mut document);
    document["info"]["description"] = json!(DESCRIPTION);
    document["info"]["license"] = json!({ "name": "MIT OR Apache-2.0", "url": "https://spdx.org/licenses/" });
    document["info"]["contact"] = json!({ "name": "The operator of this service" });
    document["servers"] = servers();
    document["tags"] = tags::tags();
    codes::add(&mut document);
    document["components"]["schemas"]["KeyType"]["enum"] = key_types.words().collect();
    // It has words that `CustomCsrStatus` has too.
    name_variants(&mut document["components"]["schemas"]["CertificateStatus"], "CERTIFICATE");
    name_variants(&mut document["components"]["schemas"]["DeliveryStatus"], "DELIVERY");
    name_variants(&mut document["components"]["schemas"]["RenewalStatus"], "RENEWAL");
    name_variants(&mut document["components"]["schemas"]["RenewalKey"], "RENEWAL_KEY");
    // It has those that `KeyType` has too.
    name_variants(&mut document["components"]["schemas"]["CustomCsrKeyType"], "CUSTOM_CSR");
    for operation in operations_of(&mut document) {
        for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            headers::add(status, response);
        }
        examples::add(operation);
        links::add(operation);
    }
    share::share(&mut document);
    document
}

/// Where the API is. The first one is right for Swagger UI, which the service itself serves; clients know the others' origin.
fn servers() -> Value {
    let origin = json!({ "default": "http://127.0.0.1:8080", "description": "Scheme, host and port of the service." });
    let elsewhere = |prefix: &str, description: &str| json!({ "url": format!("{{origin}}{prefix}"), "description": description, "variables": { "origin": origin } });
    json!([
        { "url": CANONICAL, "description": "The service that this document comes from." },
        elsewhere(CANONICAL, "A service elsewhere."),
        elsewhere(CLIENT, "The same, as the official clients ask for it."),
    ])
}

/// Names the variants of an enum for generators in whose languages all enums share a name space.
fn name_variants(schema: &mut Value, prefix: &str) {
    let name = |word: &Value| json!(format!("{prefix}_{}", word.as_str().unwrap_or_default().to_uppercase()));
    schema["x-enum-varnames"] = schema["enum"].as_array().into_iter().flatten().map(name).collect();
}

/// Every operation of a document.
fn operations_of(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(_, operations)| operations.as_object_mut().into_iter().flatten().map(|(_, operation)| operation))
}

/// The document as YAML.
#[must_use]
pub fn yaml(document: &Value) -> String {
    serde_saphyr::to_string(document).unwrap_or_default()
}

/// Swagger UI with this document in it; it fetches nothing.
#[must_use]
pub fn swagger_ui(service: &OpenApiService<impl OpenApi, ()>, document: &Value) -> String {
    // A `</script>` within the document would end the script that holds it.
    let ours = document.to_string().replace("</", "<\\/");
    let page = service.swagger_ui_html().replace(&service.spec(), &ours).replace(UI_SETTINGS, &format!("{UI_SETTINGS}{AUTHORIZATION}"));
    page.replace("<html charset", "<!DOCTYPE html>\n<html lang=\"en\" charset").replace(UI_TITLE, TITLE)
}
