//! The OpenAPI document: generated from the operations, then put right.
//!
//! What poem-openapi writes calls itself 3.0.0 and is not valid as it stands; this makes it valid 3.0.3, and adds what the types cannot say.

use poem_openapi::{OpenApi, OpenApiService};
use serde_json::{Map, Value, json};
use shared::codes::{ErrorCode, WarningCode};

use crate::{
    custom_certificates, custom_csrs,
    http::{
        mounted::{Account, Zone, mount},
        prefix::CANONICAL,
    },
};

const DESCRIPTION: &str = "Makes private keys and certificate signing requests (CSRs) for the tenants of a platform. The private key never \
leaves the service. The API is that of Cloudflare's custom CSRs: existing clients work with another base URL (`/client/v4` answers like `/api/v4`).

Every response has the same envelope. Errors carry one of these codes:

";

/// All operations, each where it is mounted.
#[must_use]
pub fn operations() -> impl OpenApi {
    (
        mount::<Zone, _>(custom_csrs::operations()),
        mount::<Account, _>(custom_csrs::operations()),
        mount::<Zone, _>(custom_certificates::of_zones()),
        mount::<Account, _>(custom_certificates::of_accounts()),
    )
}

/// The service around the operations.
#[must_use]
pub fn service() -> OpenApiService<impl OpenApi, ()> {
    OpenApiService::new(operations(), "csrd", env!("CARGO_PKG_VERSION")).server(CANONICAL)
}

/// The document.
#[must_use]
pub fn document(service: &OpenApiService<impl OpenApi, ()>) -> Value {
    let mut document: Value = serde_json::from_str(&service.spec()).unwrap_or_default();
    mend(&mut document);
    if let Some(root) = document.as_object_mut() {
        root.remove("webhooks");
        root.insert("openapi".into(), json!("3.0.3"));
    }
    document["info"]["description"] = json!(format!("{DESCRIPTION}{}", code_table()));
    document["info"]["license"] = json!({ "name": "MIT OR Apache-2.0" });
    for (_, operations) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in operations.as_object_mut().into_iter().flatten() {
            for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
                add_headers(status, response);
            }
        }
    }
    document
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
    service.swagger_ui_html().replace(&service.spec(), &ours).replace("<html charset", "<!DOCTYPE html>\n<html lang=\"en\" charset")
}

/// The table of codes in Markdown.
fn code_table() -> String {
    let errors = ErrorCode::ALL.iter().map(|code| (code.number(), code.status(), code.template()));
    let warnings = WarningCode::ALL.iter().map(|code| (code.number(), code.status(), code.template()));
    let rows = errors.chain(warnings).map(|(number, status, text)| {
        let status = if number / 1000 == 2 { "–".to_owned() } else { status.to_string() };
        format!("| {number} | {status} | {} |\n", text.replace('|', "\\|"))
    });
    std::iter::once("| code | HTTP status | message |\n|---|---|---|\n".to_owned()).chain(rows).collect()
}

/// Puts right what is invalid anywhere in the document.
fn mend(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(mend),
        Value::Object(members) => {
            mend_object(members);
            members.iter_mut().filter(|(key, _)| *key != "example").for_each(|(_, member)| mend(member));
        }
        _ => {}
    }
}

fn mend_object(members: &mut Map<String, Value>) {
    if members.get("deprecated") == Some(&json!(false)) {
        members.remove("deprecated");
    }
    // It matters for lists and objects only: no parameter is one.
    if members.contains_key("in") {
        members.remove("explode");
    }
    // A reference with siblings comes as `allOf: [reference, siblings]` beside the same siblings.
    if let Some(Value::Array(parts)) = members.get_mut("allOf")
        && parts.len() == 2
        && parts[0].get("$ref").is_some()
    {
        parts.truncate(1);
    }
    // 3.0.3: `nullable` counts only beside a `type`.
    if members.get("nullable") == Some(&json!(true)) && !members.contains_key("type") {
        members.insert("type".into(), json!("object"));
    }
    if let Some(Value::Object(content)) = members.get_mut("content") {
        *content = std::mem::take(content).into_iter().map(|(media_type, body)| (essence(&media_type), body)).collect();
    }
    for bound in ["minimum", "maximum"] {
        if let Some(whole) = members.get(bound).and_then(Value::as_f64).filter(|bound| bound.fract() == 0.0) {
            #[expect(clippy::cast_possible_truncation, reason = "bounds of ours, all small")]
            members.insert(bound.into(), json!(whole as i64));
        }
    }
    if let (Some("integer"), Some(format)) =
        (members.get("type").and_then(Value::as_str), members.get("format").and_then(Value::as_str).map(str::to_owned))
        && format.starts_with("uint")
    {
        members.insert("format".into(), json!(if format == "uint64" { "int64" } else { "int32" }));
        members.insert("minimum".into(), json!(0));
    }
}

fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_owned()
}

/// The headers that middleware and errors add: operations do not know of them.
fn add_headers(status: &str, response: &mut Value) {
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    let Some(response) = response.as_object_mut() else { return };
    let mut headers = match response.remove("headers") {
        Some(Value::Object(headers)) => headers.into_iter().map(|(name, header)| (title_case(&name), header)).collect(),
        _ => Map::new(),
    };
    headers.insert("X-Request-Id".into(), text("The request's ID: the client's own, or a new one."));
    match status {
        "401" => headers
            .insert("WWW-Authenticate".into(), text("`Bearer` with `error` and `error_description` (RFC 6750): why the token is refused.")),
        "405" => headers.insert("Allow".into(), text("The methods that are.")),
        "429" | "503" => headers.insert("Retry-After".into(), text("Seconds to wait.")),
        _ => None,
    };
    response.insert("headers".into(), Value::Object(headers));
}

/// poem-openapi writes header names in capitals.
fn title_case(name: &str) -> String {
    let word =
        |word: &str| word.chars().enumerate().map(|(i, c)| if i == 0 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
    name.split('-').map(word).collect::<Vec<String>>().join("-")
}
