//! Shares what several operations have in common: parameters, headers, examples and responses.

use std::collections::BTreeMap;

use poem::http::StatusCode;
use serde_json::{Map, Value, json};

use super::operations_of;

/// Moves it to the components. What different operations say differently stays where it is.
pub fn share(document: &mut Value) {
    share_one(document, "parameters", |operation, each| {
        for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
            each(&parameter_name(parameter), parameter);
        }
    });
    share_one(document, "headers", |operation, each| {
        for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            for (name, header) in response["headers"].as_object_mut().into_iter().flatten() {
                each(&capitalized(name), header);
            }
        }
    });
    // Those that are the same everywhere, then those that name the kind of tenant.
    share_one(document, "examples", |operation, each| each_error(operation, |name, _, example| each(name, example)));
    share_one(document, "examples", |operation, each| {
        each_error(operation, |name, scope, example| each(&format!("{}{name}", capitalized(scope)), example));
    });
    share_one(document, "responses", |operation, each| {
        for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            let reason = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok()?.canonical_reason());
            each(&capitalized(reason.unwrap_or(status)), response);
        }
    });
}

/// Calls a function with each thing of an operation that may be shared, and its name among the components.
type Walk = fn(&mut Value, &mut dyn FnMut(&str, &mut Value));

fn share_one(document: &mut Value, kind: &str, walk: Walk) {
    let mut variants: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for operation in operations_of(document) {
        walk(operation, &mut |name, thing| {
            let known = variants.entry(name.to_owned()).or_default();
            if !known.contains(thing) {
                known.push(thing.clone());
            }
        });
    }
    let single = |(name, variants): (String, Vec<Value>)| Some((name, <[Value; 1]>::try_from(variants).ok()?.into_iter().next()?));
    let shared: Map<String, Value> = variants.into_iter().filter_map(single).collect();
    for operation in operations_of(document) {
        walk(operation, &mut |name, thing| {
            if shared.contains_key(name) {
                *thing = json!({ "$ref": format!("#/components/{kind}/{name}") });
            }
        });
    }
    let components = &mut document["components"][kind];
    if components.is_null() {
        *components = json!({});
    }
    if let Some(components) = components.as_object_mut() {
        components.extend(shared);
    }
}

/// Calls a function with each error example of an operation, its name and the operation's scope.
fn each_error(operation: &mut Value, mut each: impl FnMut(&str, &str, &mut Value)) {
    let scope = operation["operationId"].as_str().and_then(|id| id.split('-').next()).unwrap_or_default().to_owned();
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if !status.starts_with(['4', '5']) {
            continue;
        }
        let examples = response["content"]["application/json"]["examples"].as_object_mut().into_iter().flatten();
        for (name, example) in examples.filter(|(_, example)| example.get("$ref").is_none()) {
            each(name, &scope, example);
        }
    }
}

/// A filter by an ID is not the ID of a path.
fn parameter_name(parameter: &Value) -> String {
    let name = parameter["name"].as_str().unwrap_or_default();
    let is_filter = parameter["in"] == "query" && name.ends_with("_id");
    capitalized(name) + if is_filter { "Filter" } else { "" }
}

/// `zone_id` and `Idempotency-Key` as `ZoneId` and `IdempotencyKey`.
fn capitalized(name: &str) -> String {
    let capital = |word: &str| word.chars().enumerate().map(|(i, c)| if i == 0 { c.to_ascii_uppercase() } else { c }).collect::<String>();
    name.split(['_', '-', ' ']).map(capital).collect()
}
