//! How custom CSRs are shown, and waited for before.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{all, time::time};
use crate::{
    client::Client,
    failure::Failure,
    output::{Form, print, print_json, print_lines, print_object, print_table},
    wait::Wait,
};

/// What the table of one custom CSR shows; its CSR stands below.
const MEMBERS: [&str; 18] = [
    "id",
    "status",
    "error",
    "common_name",
    "sans",
    "key_type",
    "name",
    "description",
    "country",
    "state",
    "locality",
    "organization",
    "organizational_unit",
    "created_at",
    "updated_at",
    "replaces",
    "set_id",
    "custom_certificate_ids",
];
/// Of a set.
const SET_COLUMNS: [&str; 6] = ["set_id", "id", "status", "key_type", "common_name", "name"];

/// Whether to wait for the CSR.
#[derive(Args)]
pub struct WaitArgs {
    /// Wait until the CSR is made, such as `--wait` (5 minutes) or `--wait=30s`
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5m", value_parser = time)]
    wait: Option<Duration>,
    /// Print the CSR (PEM) and nothing else; waits for it
    #[arg(long)]
    csr: bool,
}

/// Waits for all of a set if so told, and prints them, whatever the wait comes to.
pub async fn show_set(client: &Client, form: Form, args: &WaitArgs, set: Vec<Value>) -> Result<(), Failure> {
    let (mut csrs, mut failures) = (set, Vec::new());
    if let Some(bound) = args.bound() {
        let wait = Wait::begin(bound);
        for csr in &mut csrs {
            let (seen, failure) = wait.follow(client, csr.take()).await;
            *csr = seen;
            failures.extend(failure);
        }
    }
    match form {
        _ if args.csr => csrs.iter().filter_map(|csr| csr["csr"].as_str()).try_for_each(print_lines)?,
        Form::Json => csrs.iter().try_for_each(print_json)?,
        Form::Table => print_table(&csrs, &SET_COLUMNS)?,
    }
    all(failures)
}

impl WaitArgs {
    /// How long to wait, if at all.
    fn bound(&self) -> Option<Duration> {
        self.wait.or_else(|| self.csr.then_some(Duration::from_mins(5)))
    }
}

/// Waits if so told, and prints a custom CSR, whatever the wait comes to: its ID must not be lost.
pub async fn show(client: &Client, form: Form, args: &WaitArgs, csr: Value) -> Result<(), Failure> {
    let (csr, failure) = match args.bound() {
        Some(bound) => Wait::begin(bound).follow(client, csr).await,
        None => (csr, None),
    };
    let pem = csr["csr"].as_str();
    match (args.csr, pem) {
        // The error that follows names the ID.
        (true, None) => {}
        (true, Some(pem)) => print_lines(pem)?,
        (false, _) => {
            let members: Vec<_> = MEMBERS.into_iter().filter(|name| !is_empty(&csr[*name])).collect();
            print_object(form, &csr, &members)?;
            if let (Form::Table, Some(pem)) = (form, pem) {
                print("\n")?;
                print_lines(pem)?;
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
