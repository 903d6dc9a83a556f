//! What is printed: tables for people, lines of JSON for scripts.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, ErrorKind, Write},
};

use comfy_table::{Table, presets};
use serde_json::Value;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use crate::failure::{Class, Failure};

/// In which form a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// An object on each line.
    Json,
}

/// Prints text that ends with a newline. A reader that left, as `head` does, is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Class::Refused, format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a line on standard error.
pub fn complain(text: &str) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr(), "csrctl: {}", escape(&text));
}

/// Prints a text of several lines, such as PEM, as it is.
pub fn print_lines(text: &str) -> Result<(), Failure> {
    print(&text.lines().fold(String::new(), |lines, line| lines + &escape(line) + "\n"))
}

/// Prints an object: its JSON, or a line for each of these members.
pub fn print_object(form: Form, object: &Value, members: &[&str]) -> Result<(), Failure> {
    match form {
        Form::Json => print_json(object),
        Form::Table => print(&table(members.iter().map(|name| vec![(*name).to_owned(), shown(&object[*name])]))),
    }
}

/// Prints the JSON of a value on one line.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{}\n", escape(&value.to_string())))
}

/// Prints a table of objects, whose columns are these members.
pub fn print_table(objects: &[Value], members: &[&str]) -> Result<(), Failure> {
    let header = members.iter().map(|name| name.to_uppercase()).collect();
    let rows = objects.iter().map(|object| members.iter().map(|name| shown(&object[*name])).collect());
    print(&table(std::iter::once(header).chain(rows)))
}

/// A value for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => escape(text).into_owned(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Cells in columns, with two spaces between.
fn table(rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Replaces what a terminal would act on by `\uXXXX`, as in JSON: escaped JSON stays the same JSON.
pub fn escape(text: &str) -> Cow<'_, str> {
    let is_printable = |c: char| {
        use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
        !matches!(c.general_category(), Control | Format | LineSeparator | ParagraphSeparator)
    };
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_printable(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped_and_json_stays_the_same() {
        let value = json!({"name": "\u{9b}31m \u{202e}red\u{2028}\u{e0041} Müller 日本"});
        let escaped = escape(&value.to_string()).into_owned();
        assert!(escaped.contains("\\u009b31m \\u202ered\\u2028\\udb40\\udc41 Müller 日本"), "{escaped}");
        assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn a_table_has_its_columns_below_each_other() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [row(["ID", "NAME"]), row(["日本", "a"]), row(["long-id", ""])];
        assert_eq!(table(rows.into_iter()), "ID       NAME\n日本     a\nlong-id\n");
    }

    #[test]
    fn values_are_shown_to_people_on_one_line() {
        for (value, text) in
            [(json!(null), "-"), (json!("a\nb"), "a\\u000ab"), (json!(["a.example", "b.example"]), "a.example,b.example"), (json!(5), "5")]
        {
            assert_eq!(shown(&value), text);
        }
    }
}
