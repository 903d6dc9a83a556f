//! The errors and warnings of the API, as lines that name the option that caused each.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    failure::{Class, Failure},
    scope::Scope,
};

/// The code of an entry that explains an error.
const HINT: u64 = 2100;

/// What a request was made of, by which its errors are named.
pub struct Origin<'a> {
    /// The ID in the path, if there is one.
    pub id: Option<&'a str>,
    pub body: &'a Value,
    /// Members whose values do not come from an option of their name, and where they come from.
    pub names: &'a [(&'a str, &'a str)],
    pub scope: &'a Scope,
}

impl Origin<'_> {
    /// An answer that is no success, as an error of its class.
    pub fn failure(&self, status: u16, envelope: &Value) -> Failure {
        let errors = envelope["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let lines = errors.iter().map(|error| format!("{} ({})", self.line(error), error["code"]));
        let lines = lines.chain(self.messages(envelope)).collect();
        Failure { class: class(status, errors.first().and_then(|error| error["code"].as_u64()).unwrap_or_default()), lines }
    }

    /// The warnings and hints in an answer.
    pub fn messages(&self, envelope: &Value) -> Vec<String> {
        let entries = envelope["messages"].as_array().into_iter().flatten();
        let shown = |entry: &Value| match self.line(entry) {
            hint if entry["code"] == HINT => format!("hint: {hint}"),
            warning => format!("warning: {warning} ({})", entry["code"]),
        };
        entries.map(shown).collect()
    }

    fn line(&self, entry: &Value) -> String {
        let message = entry["message"].as_str().unwrap_or_default();
        self.cause(entry).map_or_else(|| message.to_owned(), |cause| format!("{cause}: {message}"))
    }

    /// The option or argument that an entry is about.
    fn cause(&self, entry: &Value) -> Option<String> {
        let source = &entry["source"];
        if let Some(pointer) = source["pointer"].as_str() {
            let member = pointer.split('/').nth(1).filter(|member| !member.is_empty())?;
            let option = self.option(&member.replace("~1", "/").replace("~0", "~")).into_owned();
            // One of several values: which one.
            let value = self.body.pointer(pointer).and_then(Value::as_str).filter(|_| pointer.matches('/').count() > 1);
            return Some(value.map_or_else(|| option.clone(), |value| format!("{option} {value}")));
        }
        let named = source["parameter"].as_str().map(ToOwned::to_owned);
        if let Some(name) = named.or_else(|| source["header"].as_str().map(|name| name.to_lowercase().replace('-', "_"))) {
            return Some(self.option(&name).into_owned());
        }
        match entry["code"].as_u64()? {
            1418 | 1419 | 1480 | 1481 | 1492 | 1493 => self.id.map(|id| format!("ID {id}")),
            1401 | 1403 | 1404 | 1465 => Some(self.scope.to_string()),
            _ => None,
        }
    }

    fn option(&self, member: &str) -> Cow<'_, str> {
        let named = self.names.iter().find(|(name, _)| *name == member);
        named.map_or_else(|| Cow::Owned(format!("--{}", member.replace('_', "-"))), |(_, option)| Cow::Borrowed(*option))
    }
}

/// The class of an error by its HTTP status and the code that stands first.
const fn class(status: u16, code: u64) -> Class {
    match (status, code) {
        (401, _) | (_, 1000..=1005 | 1402 | 1404) => Class::NotAllowed,
        (500.., _) => Class::Unreachable,
        _ => Class::Refused,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failure(status: u16, errors: &Value, messages: &Value) -> Failure {
        let body = json!({"common_name": "x", "sans": ["a.example", "10.0.0.1"]});
        let scope = Scope::Zone("demo".to_owned());
        let names = [("common_name", "--cn"), ("sans", "--san")];
        Origin { id: Some("X"), body: &body, names: &names, scope: &scope }
            .failure(status, &json!({"errors": errors, "messages": messages}))
    }

    #[test]
    fn each_error_is_a_line_that_names_its_option() {
        let pointer = |code: u64, pointer: &str| json!({"code": code, "message": "Wrong.", "source": {"pointer": pointer}});
        let errors = json!([
            pointer(1405, "/country"),
            pointer(1410, "/common_name"),
            pointer(1412, "/sans/1"),
            pointer(1411, "/sans"),
            pointer(1461, "/organizational_unit"),
            pointer(1400, ""),
            {"code": 1464, "message": "Wrong.", "source": {"parameter": "key_type"}},
            {"code": 1464, "message": "Wrong.", "source": {"header": "Idempotency-Key"}},
            {"code": 1419, "message": "Wrong."},
        ]);
        let hints = json!([{"code": 2100, "message": "An address.", "source": {"pointer": "/sans/1"}}]);
        assert_eq!(
            failure(400, &errors, &hints).lines,
            [
                "--country: Wrong. (1405)",
                "--cn: Wrong. (1410)",
                "--san 10.0.0.1: Wrong. (1412)",
                "--san: Wrong. (1411)",
                "--organizational-unit: Wrong. (1461)",
                "Wrong. (1400)",
                "--key-type: Wrong. (1464)",
                "--idempotency-key: Wrong. (1464)",
                "ID X: Wrong. (1419)",
                "hint: --san 10.0.0.1: An address.",
            ]
        );
    }

    #[test]
    fn an_error_has_a_class() {
        for (status, code, class) in [
            (400, 1405, Class::Refused),
            (400, 1402, Class::NotAllowed),
            (401, 1003, Class::NotAllowed),
            (403, 1404, Class::NotAllowed),
            (403, 1403, Class::Refused),
            (403, 1465, Class::Refused),
            (404, 1419, Class::Refused),
            (409, 1420, Class::Refused),
            (429, 1470, Class::Refused),
            (500, 1500, Class::Unreachable),
            (503, 1471, Class::Unreachable),
        ] {
            assert_eq!(failure(status, &json!([{"code": code, "message": "Wrong."}]), &json!([])).class, class, "{status} {code}");
        }
    }
}
