//! `csrctl set`: custom CSRs for the same names, each with a key of another type.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    custom_csrs::{GivenArgs, Members, SubjectArgs, make},
    id, list_all,
    show::{WaitArgs, show_set},
    text,
};
use crate::{
    client::{Client, Request},
    failure::{Class, Failure},
    output::Form,
};

/// `csrctl set …`
#[derive(Args)]
pub struct SetArgs {
    #[command(subcommand)]
    action: SetAction,
}

#[derive(Subcommand)]
enum SetAction {
    /// Make a key and a CSR of each of several types: all of them or none
    Create(Box<CreateArgs>),
    /// Show the custom CSRs of a set
    Get(GetArgs),
    /// Make new keys and CSRs for a set: they are of the same set, and each replaces the newest with a key of its type
    Rekey(RekeyArgs),
}

#[derive(Args)]
struct CreateArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// The key pairs to make, 2 to 4 of them with commas between: rsa2048,p256v1, or other ones that the service accepts
    #[arg(long, value_name = "TYPE,TYPE", value_delimiter = ',', required = true)]
    key_types: Vec<String>,
    #[command(flatten)]
    given: GivenArgs,
}

#[derive(Args)]
struct GetArgs {
    /// The set's ID
    #[arg(value_parser = id)]
    id: String,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Args)]
struct RekeyArgs {
    /// The set's ID
    #[arg(value_parser = id)]
    id: String,
    #[command(flatten)]
    given: GivenArgs,
}

/// Runs `csrctl set …`.
pub async fn run(client: &Client, form: Form, args: SetArgs) -> Result<(), Failure> {
    match args.action {
        SetAction::Create(args) => {
            let mut body = args.subject.members();
            body.insert("key_types".to_owned(), json!(args.key_types));
            make(client, form, &["custom_csrs"], body, args.given).await
        }
        SetAction::Get(args) => show_set(client, form, &args.wait, find(client, &args.id).await?).await,
        SetAction::Rekey(args) => {
            // The oldest: that of a command that is repeated too.
            let set = find(client, &args.id).await?;
            let oldest = set.first().map(|csr| text(csr, "id")).unwrap_or_default();
            make(client, form, &["custom_csrs", oldest, "rekey"], Members::new(), args.given).await
        }
    }
}

/// The custom CSRs of a set, the oldest first.
async fn find(client: &Client, set_id: &str) -> Result<Vec<Value>, Failure> {
    let request = || Request::new(Method::GET, ["custom_csrs"]).query("set_id", Some(set_id)).query("direction", Some("asc"));
    let found = list_all(client, request).await?;
    if found.is_empty() { Err(Failure::new(Class::Refused, format!("there is no custom CSR of the set {set_id}"))) } else { Ok(found) }
}
