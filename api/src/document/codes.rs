//! The codes of errors and warnings: a table for people, a list for programs.

use serde_json::{Value, json};
use shared::codes::{ErrorCode, WarningCode};

/// Adds them to the schema of a message.
pub fn add(document: &mut Value) {
    let message = &mut document["components"]["schemas"]["Message"];
    let text = message["description"].as_str().unwrap_or_default();
    message["description"] = json!(format!("{text}\n\n{}", table()));
    message["properties"]["code"]["x-error-codes"] = codes()
        .map(|(code, status, message)| match status {
            Some(status) => json!({ "code": code, "status": status, "message": message }),
            None => json!({ "code": code, "message": message }),
        })
        .collect();
}

/// Number, status and text; a warning has no status.
fn codes() -> impl Iterator<Item = (u16, Option<u16>, String)> {
    // What stands for the details of a case is no English.
    let text = |template: &str| template.replace(":reason", "…");
    let errors = ErrorCode::ALL.iter().map(move |code| (code.number(), Some(code.status()), text(code.template())));
    errors.chain(WarningCode::ALL.iter().map(move |code| (code.number(), None, text(code.template()))))
}

/// In Markdown.
fn table() -> String {
    let row = |(code, status, message): (u16, Option<u16>, String)| {
        let status = status.map_or_else(|| "–".to_owned(), |status| status.to_string());
        format!("| {code} | {status} | {} |\n", message.replace('|', "\\|"))
    };
    std::iter::once("| code | HTTP status | message |\n|---|---|---|\n".to_owned()).chain(codes().map(row)).collect()
}
