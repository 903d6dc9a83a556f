//! `csrctl handover`.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{id, time::time};
use crate::{
    client::{Client, Request},
    failure::Failure,
    output::{Form, print_json, print_lines, print_object, print_table},
};

const MEMBERS: [&str; 5] = ["id", "url", "expires_at", "note", "created_at"];
const COLUMNS: [&str; 7] = ["id", "created_at", "expires_at", "opened_at", "used_at", "revoked_at", "note"];

/// `csrctl handover …`
#[derive(Args)]
pub struct HandoverArgs {
    #[command(subcommand)]
    action: HandoverAction,
}

#[derive(Subcommand)]
enum HandoverAction {
    /// Make a link to a custom CSR, and print its URL, which is not shown again
    Create(CreateArgs),
    /// List the links to a custom CSR, the newest first, without their URLs
    List(ListArgs),
    /// Revoke a link
    Revoke(RevokeArgs),
}

#[derive(Args)]
struct CreateArgs {
    /// The custom CSR's ID
    #[arg(value_parser = id)]
    id: String,
    /// How long the link lasts: an hour to 30 days, such as `12h` or `7d`; a week if not given
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires_in: Option<Duration>,
    /// What the page says to whoever opens the link
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Args)]
struct ListArgs {
    /// The custom CSR's ID
    #[arg(value_parser = id)]
    id: String,
}

#[derive(Args)]
struct RevokeArgs {
    /// The custom CSR's ID
    #[arg(value_parser = id)]
    id: String,
    /// The link's ID
    #[arg(value_parser = id)]
    handover_id: String,
}

/// Runs `csrctl handover …`.
pub async fn run(client: &Client, form: Form, args: HandoverArgs) -> Result<(), Failure> {
    match args.action {
        HandoverAction::Create(CreateArgs { id, expires_in, note }) => {
            let members = [("expires_in", json!(expires_in.map(|time| time.as_secs()))), ("note", json!(note))];
            let given = members.into_iter().filter(|(_, value)| !value.is_null());
            let body: Map<_, _> = given.map(|(name, value)| (name.to_owned(), value)).collect();
            let request = Request::new(Method::POST, ["custom_csrs", id.as_str(), "handover"]).body(Value::Object(body), &[]);
            print_object(form, &client.send(&request).await?.result, &MEMBERS)
        }
        HandoverAction::List(ListArgs { id }) => {
            let found = client.send(&Request::new(Method::GET, ["custom_csrs", id.as_str(), "handover"])).await?.result;
            let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
            match form {
                Form::Json => found.iter().try_for_each(print_json),
                Form::Table => print_table(found, &COLUMNS),
            }
        }
        HandoverAction::Revoke(RevokeArgs { id, handover_id }) => {
            let path = ["custom_csrs", id.as_str(), "handover", handover_id.as_str()];
            let revoked = client.send(&Request::new(Method::DELETE, path)).await?.result;
            match form {
                Form::Json => print_json(&revoked),
                Form::Table => print_lines(&format!("revoked {}", revoked["id"].as_str().unwrap_or(&handover_id))),
            }
        }
    }
}
