//! Lists: a table on a terminal, otherwise a line for each row, or lines of JSON.

use std::io::{self, IsTerminal};

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::{Map, Value};
use shared::printable::escape;

use super::{database::DatabaseArgs, settings::Output};

/// What every list takes.
#[derive(Args)]
pub struct ListArgs {
    /// Print lines of JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[derive(Clone, Copy)]
enum Form {
    /// With a header, for people.
    Table,
    /// The first column's value, and then `name=value` of the others, with tabs between: for scripts.
    Lines,
    Json,
}

/// A list that is printed page by page.
pub struct Listing<const N: usize> {
    columns: [&'static str; N],
    form: Form,
    output: Output,
    is_begun: bool,
}

impl<const N: usize> Listing<N> {
    /// A list with these columns.
    pub fn new(args: &ListArgs, columns: [&'static str; N]) -> Self {
        let form = match (args.json, io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Table,
            (false, false) => Form::Lines,
        };
        Self { columns, form, output: Output::new(), is_begun: false }
    }

    /// Prints the next rows. A table has its columns as wide as these rows need.
    pub fn page(&mut self, rows: Vec<[Value; N]>) -> io::Result<()> {
        let text = match self.form {
            Form::Json => rows.into_iter().map(|row| self.json(row)).collect(),
            Form::Lines => rows.iter().map(|row| self.line(&row.each_ref().map(shown))).collect(),
            Form::Table => {
                let header = (!self.is_begun).then(|| self.columns.map(str::to_uppercase));
                table(&header.into_iter().chain(rows.iter().map(|row| row.each_ref().map(shown))).collect::<Vec<_>>())
            }
        };
        self.is_begun = true;
        self.output.text(&text)
    }

    /// Whether nobody reads any more.
    pub const fn is_closed(&self) -> bool {
        self.output.is_closed()
    }

    fn json(&self, row: [Value; N]) -> String {
        let members: Map<_, _> = self.columns.iter().map(|name| (*name).to_owned()).zip(row).collect();
        format!("{}\n", escape(&Value::Object(members).to_string()))
    }

    fn line(&self, cells: &[String; N]) -> String {
        let named = self.columns.iter().zip(cells).skip(1).map(|(name, cell)| format!("{name}={cell}"));
        let line: Vec<_> = cells.first().cloned().into_iter().chain(named).collect();
        line.join("\t") + "\n"
    }
}

/// A value for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => escape(text).into_owned(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Cells in columns, with two spaces between.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if rows.is_empty() { String::new() } else { table.trim_fmt() + "\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_columns_below_each_other() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        assert_eq!(
            table(&[row(["ID", "QUOTA"]), row(["long-id", "none"]), row(["ü", "5"]), row(["日本", "6"])]),
            "ID       QUOTA\nlong-id  none\nü        5\n日本     6\n"
        );
        assert_eq!(table::<2>(&[]), "");
    }
}
