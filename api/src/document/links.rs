//! Links: which operations go on with what one has made.

use serde_json::{Map, Value, json};

/// What can be done with a custom CSR, and with a custom certificate: the names of operations, but for their scope.
const OF_CSR: [&str; 4] = ["custom-csrs-get", "custom-csrs-edit", "custom-csrs-delete", "custom-csrs-rekey"];
const OF_CERTIFICATE: [&str; 3] = ["custom-certificates-get", "custom-certificates-edit", "custom-certificates-delete"];
const OF_WEBHOOK: [&str; 5] = ["webhooks-get", "webhooks-edit", "webhooks-delete", "webhooks-ping", "webhooks-deliveries"];

/// Adds them to the response of an operation that makes something.
pub fn add(operation: &mut Value) {
    let Some((scope, name)) = operation["operationId"].as_str().and_then(|id| id.split_once('-')) else { return };
    let (targets, id): (&[&str], _) = match name {
        "custom-csrs-create" | "custom-csrs-rekey" => (&OF_CSR, "custom_csr_id"),
        "custom-certificates-create" => (&OF_CERTIFICATE, "custom_certificate_id"),
        "webhooks-create" => (&OF_WEBHOOK, "webhook_id"),
        _ => return,
    };
    let parent = format!("{scope}_id");
    let parameters = json!({ parent.as_str(): format!("$request.path.{parent}"), id: "$response.body#/result/id" });
    let link = |target: &&str| {
        let operation_id = format!("{scope}-{target}");
        (operation_id.clone(), json!({ "operationId": operation_id, "parameters": parameters }))
    };
    let links: Map<String, Value> = targets.iter().map(link).collect();
    operation["responses"]["201"]["links"] = Value::Object(links);
}
