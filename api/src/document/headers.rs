//! Headers that middleware and errors add to responses: operations do not know of them.

use serde_json::{Map, Value, json};

/// Adds them to the response with this status.
pub fn add(status: &str, response: &mut Value) {
    let header = |description: &str, schema: Value| json!({ "description": description, "schema": schema });
    let text = |description: &str| header(description, json!({ "type": "string" }));
    let Some(response) = response.as_object_mut() else { return };
    let mut headers = match response.remove("headers") {
        Some(Value::Object(headers)) => headers.into_iter().map(|(name, header)| (title_case(&name), header)).collect(),
        _ => Map::new(),
    };
    headers.insert("X-Request-Id".into(), text("The request's ID: the client's own, or a new one."));
    match status {
        "400" => headers.insert("WWW-Authenticate".into(), text("`Bearer` if the request has no token: 1402 (RFC 6750).")),
        "401" => headers
            .insert("WWW-Authenticate".into(), text("`Bearer` with `error` and `error_description` (RFC 6750): why the token is refused.")),
        "403" => headers.insert(
            "WWW-Authenticate".into(),
            text("If the token lacks a permission: `Bearer` with `error=\"insufficient_scope\"` and the `scope` that it needs (RFC 6750)."),
        ),
        "405" => headers.insert("Allow".into(), text("The methods that are.")),
        "415" => headers.insert("Accept-Encoding".into(), text("`identity`: what a body may be encoded in.")),
        "429" | "503" => headers.insert("Retry-After".into(), header("Seconds to wait.", json!({ "type": "integer", "minimum": 1 }))),
        _ => None,
    };
    if matches!(status, "409" | "503") {
        let should_retry = header(
            "`false` if repeating the request does not help, or may do it twice: the official clients heed it.",
            json!({ "type": "string", "enum": ["false"] }),
        );
        headers.insert("X-Should-Retry".into(), should_retry);
    }
    response.insert("headers".into(), Value::Object(headers));
}

/// poem-openapi writes header names in capitals.
fn title_case(name: &str) -> String {
    let word =
        |word: &str| word.chars().enumerate().map(|(i, c)| if i == 0 { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
    if name.eq_ignore_ascii_case("ETag") {
        return "ETag".to_owned();
    }
    name.split('-').map(word).collect::<Vec<String>>().join("-")
}
