//! The OpenAPI document: generated from the operations, then put right.
//!
//! What poem-openapi writes calls itself 3.0.0 and is not valid as it stands; this makes it valid 3.0.3, and adds what the types cannot say.

use poem_openapi::OpenApiService;
use serde_json::{Map, Value, json};
use shared::codes::{ErrorCode, WarningCode};

use crate::{
    http::prefix::CANONICAL,
    http::query::{PER_PAGE, SEARCH_MAX_CHARS},
    idempotency::KEY_MAX_CHARS,
    routes::{
        custom_certificates::{AccountCustomCertificates, ZoneCustomCertificates},
        custom_csrs::{AccountCustomCsrs, ZoneCustomCsrs},
    },
    wait::WAIT_MAX_SECS,
};

/// The operations as a service, without a prefix.
pub type Service = OpenApiService<(ZoneCustomCsrs, AccountCustomCsrs, ZoneCustomCertificates, AccountCustomCertificates), ()>;

const DESCRIPTION: &str = "Makes private keys and certificate signing requests (CSRs) for the tenants of a platform. The private key never \
leaves the service. The API is that of Cloudflare's custom CSRs: existing clients work with another base URL (`/client/v4` answers like `/api/v4`).

Every response has the same envelope. Errors carry one of these codes:

";

/// The service around the operations.
#[must_use]
pub fn service() -> Service {
    OpenApiService::new(
        (ZoneCustomCsrs, AccountCustomCsrs, ZoneCustomCertificates, AccountCustomCertificates),
        "csrd",
        env!("CARGO_PKG_VERSION"),
    )
    .server(CANONICAL)
}

/// The document.
#[must_use]
pub fn document(service: &Service) -> Value {
    let mut document: Value = serde_json::from_str(&service.spec()).unwrap_or_default();
    mend(&mut document);
    if let Some(root) = document.as_object_mut() {
        root.remove("webhooks");
        root.insert("openapi".into(), json!("3.0.3"));
    }
    document["info"]["description"] = json!(format!("{DESCRIPTION}{}", code_table()));
    document["info"]["license"] = json!({ "name": "MIT OR Apache-2.0" });
    mend_paths(&mut document);
    document
}

/// The document as YAML.
#[must_use]
pub fn yaml(document: &Value) -> String {
    serde_saphyr::to_string(document).unwrap_or_default()
}

/// Swagger UI with this document in it; it fetches nothing.
#[must_use]
pub fn swagger_ui(service: &Service, document: &Value) -> String {
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

fn mend_paths(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    *paths = std::mem::take(paths)
        .into_iter()
        .map(|(path, mut operations)| {
            let (kind, id) = if path.starts_with("/zones/") { ("zone", "zone_id") } else { ("account", "account_id") };
            for (method, operation) in operations.as_object_mut().into_iter().flatten() {
                mend_operation(method, operation, kind, id, &path);
            }
            (path.replace("scope_id", id), operations)
        })
        .collect();
}

fn mend_operation(method: &str, operation: &mut Value, kind: &str, id: &str, path: &str) {
    let is_certificate = path.contains("/custom_certificates");
    operation["tags"] = json!([format!("{kind} custom {}", if is_certificate { "certificates" } else { "CSRs" })]);
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        for parameter in parameters.iter_mut() {
            mend_path_parameter(parameter, kind, id);
        }
        parameters.extend(match (method, path.rsplit('/').next().unwrap_or_default()) {
            ("post", "custom_csrs" | "rekey") => vec![prefer_parameter(), idempotency_key_parameter()],
            ("get", "custom_csrs") => list_parameters(),
            ("get", "{custom_csr_id}") => vec![prefer_parameter()],
            ("post", "custom_certificates") | ("patch", "{custom_certificate_id}") => vec![dry_run_parameter()],
            ("get", "custom_certificates") => certificate_list_parameters(),
            _ => Vec::new(),
        });
    }
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        mend_response(status, response);
    }
}

fn mend_path_parameter(parameter: &mut Value, kind: &str, id: &str) {
    if let Some(members) = parameter.as_object_mut() {
        members.remove("explode");
    }
    if parameter["name"] == "scope_id" {
        parameter["name"] = json!(id);
        parameter["description"] = json!(format!("The {kind}'s ID."));
        parameter["schema"] = json!({ "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9._-]+$" });
    } else if parameter["name"] == "custom_certificate_id" {
        parameter["description"] = json!("The custom certificate's ID.");
        parameter["schema"] = json!({ "type": "string", "minLength": 32, "maxLength": 32, "pattern": "^[0-9A-Fa-f]+$" });
    } else {
        parameter["description"] = json!("The custom CSR's ID.");
        parameter["schema"] = json!({ "type": "string", "format": "uuid" });
    }
}

fn prefer_parameter() -> Value {
    json!({
        "name": "Prefer", "in": "header", "required": false,
        "description": format!("`wait=N` (RFC 7240): answer when the status is no longer `pending`, or after N seconds, at most {WAIT_MAX_SECS}."),
        "schema": { "type": "string", "example": "wait=10" },
    })
}

fn idempotency_key_parameter() -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "Makes the request safe to repeat for 24 hours: the same key with the same body answers with the same custom CSR.",
        "schema": { "type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARS, "pattern": "^[!-~]+$" },
    })
}

#[expect(clippy::needless_pass_by_value, reason = "json! takes what it is given")]
fn query_parameter(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
}

fn page_parameters() -> [Value; 2] {
    let (fewest, most, usual) = PER_PAGE;
    [
        query_parameter("page", "The page, from 1.", json!({ "type": "integer", "minimum": 1, "default": 1 })),
        query_parameter("per_page", "Entries a page.", json!({ "type": "integer", "minimum": fewest, "maximum": most, "default": usual })),
    ]
}

fn list_parameters() -> Vec<Value> {
    let mut parameters = page_parameters().to_vec();
    parameters.extend([
        query_parameter(
            "order",
            "What to sort by. Text by code point, null last, ties by ID.",
            json!({ "type": "string", "enum": ["name", "account_tag", "created_at"], "default": "created_at" }),
        ),
        query_parameter("direction", "Which way.", json!({ "type": "string", "enum": ["asc", "desc"], "default": "desc" })),
        query_parameter("status", "Only those with this status.", json!({ "$ref": "#/components/schemas/Status" })),
        query_parameter("key_type", "Only those with this key type.", json!({ "$ref": "#/components/schemas/KeyType" })),
        query_parameter(
            "search",
            "Only those with this text in name, common name or a SAN, ASCII case ignored.",
            json!({ "type": "string", "maxLength": SEARCH_MAX_CHARS }),
        ),
    ]);
    parameters
}

fn certificate_list_parameters() -> Vec<Value> {
    let mut parameters = page_parameters().to_vec();
    parameters.extend([
        query_parameter("status", "Only those with this status.", json!({ "$ref": "#/components/schemas/CertificateStatus" })),
        query_parameter("custom_csr_id", "Only those that use this custom CSR.", json!({ "type": "string", "format": "uuid" })),
        query_parameter("host", "Only those with this host among theirs.", json!({ "type": "string", "maxLength": SEARCH_MAX_CHARS })),
        query_parameter("expires_before", "Only those that expire before this time.", json!({ "type": "string", "format": "date-time" })),
    ]);
    parameters
}

fn dry_run_parameter() -> Value {
    let schema = json!({ "type": "boolean", "default": false });
    query_parameter("dry_run", "Run every check, store nothing, and answer 200.", schema)
}

fn mend_response(status: &str, response: &mut Value) {
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    let Some(response) = response.as_object_mut() else { return };
    let mut headers = match response.remove("headers") {
        Some(Value::Object(headers)) => headers.into_iter().map(|(name, header)| (title_case(&name), header)).collect(),
        _ => Map::new(),
    };
    headers.insert("X-Request-Id".into(), text("The request's ID: the client's own, or a new one."));
    match status {
        "401" => headers.insert("WWW-Authenticate".into(), text("`Bearer` (RFC 6750).")),
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
