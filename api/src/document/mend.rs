//! Puts right what poem-openapi writes: it calls itself 3.0.0, and is not valid as it stands.

use serde_json::{Map, Value, json};

use super::operations_of;

/// Makes a document valid 3.0.3.
pub fn mend(document: &mut Value) {
    mend_value(document);
    describe_responses(document);
    if let Some(root) = document.as_object_mut() {
        root.remove("webhooks");
        root.insert("openapi".into(), json!("3.0.3"));
    }
}

/// Says of each success what its body is: handlers that answer with nothing but a body have no words for it.
fn describe_responses(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    for operation in operations_of(document) {
        for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            let body =
                response["content"]["application/json"]["schema"]["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
            if let (Some(""), Some(name)) = (response["description"].as_str(), body) {
                response["description"] = schemas[name]["description"].clone();
            }
        }
    }
}

fn mend_value(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(mend_value),
        Value::Object(members) => {
            mend_object(members);
            members.iter_mut().filter(|(key, _)| *key != "example").for_each(|(_, member)| mend_value(member));
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
    // An empty value counts as none, except where a mistake would store or destroy something.
    if members.get("in") == Some(&json!("query")) {
        members.insert("allowEmptyValue".into(), json!(![json!("dry_run"), json!("now")].contains(&members["name"])));
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
        members.entry("minimum").or_insert(json!(0));
    }
}

fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_owned()
}
