//! The codes of errors and warnings: a page for people, a list for programs.

use serde_json::{Value, json};
use shared::codes::{ErrorCode, WarningCode};

/// Adds the list to the schema of a message. Generators copy descriptions into every client, so the table is elsewhere.
pub fn add(document: &mut Value) {
    document["components"]["schemas"]["Message"]["properties"]["code"]["x-error-codes"] = codes()
        .map(|Row { code, status, meaning, message }| match status {
            Some(status) => json!({ "code": code, "status": status, "meaning": meaning, "message": message }),
            None => json!({ "code": code, "meaning": meaning, "message": message }),
        })
        .collect();
}

/// What is said of a code.
struct Row {
    code: u16,
    /// That of an error; a warning has none.
    status: Option<u16>,
    meaning: &'static str,
    message: String,
}

fn codes() -> impl Iterator<Item = Row> {
    // What stands for the details of a case is no English.
    let text = |template: &str| template.replace(":reason", "…");
    let error = move |code: &ErrorCode| Row {
        code: code.number(),
        status: Some(code.status()),
        meaning: code.meaning(),
        message: text(code.template()),
    };
    let warning =
        move |code: &WarningCode| Row { code: code.number(), status: None, meaning: code.meaning(), message: text(code.template()) };
    ErrorCode::ALL.iter().map(error).chain(WarningCode::ALL.iter().map(warning))
}

/// The page, in HTML.
#[must_use]
pub fn page() -> String {
    let row = |Row { code, status, meaning, message }| {
        let status = status.map_or_else(|| "–".to_owned(), |status| status.to_string());
        let meaning = escaped(meaning).replace('`', "");
        format!("<tr><td>{code}</td><td>{status}</td><td>{meaning}</td><td>{}</td></tr>\n", escaped(&message))
    };
    let rows: String = codes().map(row).collect();
    format!("{BEFORE_ROWS}{rows}{AFTER_ROWS}")
}

const BEFORE_ROWS: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<title>csrd: codes</title>
<link rel=\"icon\" href=\"data:,\">
<style>body { font: 1rem sans-serif; margin: 2rem } td, th { padding: .3rem .8rem; text-align: left; vertical-align: top }</style>
</head>
<body>
<h1>Codes of errors and warnings</h1>
<p>An entry of <code>errors</code> has a code below 2000 or from 7000, an entry of <code>messages</code> one from 2000 on: it has no HTTP status.
The status of a response is that of its first error. What differs from case to case is written as ….</p>
<table>
<thead><tr><th>code</th><th>HTTP status</th><th>when</th><th>message</th></tr></thead>
<tbody>
";
const AFTER_ROWS: &str = "</tbody>
</table>
<p><a href=\"/docs\">All operations</a></p>
</body>
</html>
";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
