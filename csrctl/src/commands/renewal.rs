//! `csrctl renewal`.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{
    client::{Client, Request},
    failure::Failure,
    output::{Form, print_json, print_lines, print_object},
};

const MEMBERS: [&str; 4] = ["key", "at", "created_at", "updated_at"];
const PATH: [&str; 1] = ["renewal_policy"];

/// `csrctl renewal …`
#[derive(Args)]
pub struct RenewalArgs {
    #[command(subcommand)]
    action: Option<RenewalAction>,
}

#[derive(Subcommand)]
enum RenewalAction {
    /// Have the zone's certificates renewed in time
    Set(SetArgs),
    /// End the renewal of the zone's certificates
    Delete,
}

#[derive(Args)]
struct SetArgs {
    /// reuse: keep the key of the certificate; new: make a new key each time
    #[arg(long)]
    key: String,
    /// The part of a certificate's lifetime that is left when it is renewed: more than 0 and less than 1; by default a third
    #[arg(long, value_name = "NUMBER")]
    at: Option<f64>,
}

/// Runs `csrctl renewal …`.
pub async fn run(client: &Client, form: Form, args: RenewalArgs) -> Result<(), Failure> {
    match args.action {
        None => {
            let policy = client.send(&Request::new(Method::GET, PATH)).await?.result;
            print_object(form, &policy, &MEMBERS)
        }
        Some(RenewalAction::Set(SetArgs { key, at })) => {
            let members = [("key", json!(key)), ("at", json!(at))].into_iter().filter(|(_, value)| !value.is_null());
            let body: Map<_, _> = members.map(|(name, value)| (name.to_owned(), value)).collect();
            let request = Request::new(Method::PUT, PATH).body(Value::Object(body), &[]);
            print_object(form, &client.send(&request).await?.result, &MEMBERS)
        }
        Some(RenewalAction::Delete) => {
            let deleted = client.send(&Request::new(Method::DELETE, PATH)).await?.result;
            match form {
                Form::Json => print_json(&deleted),
                Form::Table => print_lines("deleted the renewal policy"),
            }
        }
    }
}
