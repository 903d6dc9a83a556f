//! `csrctl watch`.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{all, id, list_all, text, time::time};
use crate::{
    client::{Client, Request},
    failure::{Class, Failure},
    output::{Form, print_json, print_lines},
    wait::Wait,
};

/// What to wait for.
#[derive(Args)]
pub struct WatchArgs {
    /// The IDs; without any, all that are pending
    #[arg(value_name = "ID", value_parser = id)]
    ids: Vec<String>,
    /// How long to wait for all of them together
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    timeout: Duration,
}

/// Waits until custom CSRs are no longer pending, and prints each then.
pub async fn watch(client: &Client, form: Form, args: WatchArgs) -> Result<(), Failure> {
    let wait = Wait::begin(args.timeout);
    let mut failures = Vec::new();
    let seen = if args.ids.is_empty() {
        pending(client).await?
    } else {
        args.ids.iter().map(|id| json!({"id": id, "status": "pending"})).collect()
    };
    for csr in seen {
        let (csr, failure) = wait.follow(client, csr).await;
        let is_fatal = failure.as_ref().is_some_and(|failure| matches!(failure.class, Class::Unreachable | Class::NotAllowed));
        if failure.as_ref().is_none_or(|failure| failure.class == Class::NotMade) {
            wait.aside(|| match form {
                Form::Json => print_json(&csr),
                Form::Table => print_lines(&format!("{}  {}  {}", text(&csr, "id"), text(&csr, "status"), text(&csr, "common_name"))),
            })?;
        }
        failures.extend(failure);
        if is_fatal {
            break;
        }
    }
    all(failures)
}

/// All that are pending now, oldest first.
async fn pending(client: &Client) -> Result<Vec<Value>, Failure> {
    list_all(client, || Request::new(Method::GET, ["custom_csrs"]).query("status", Some("pending")).query("direction", Some("asc"))).await
}
