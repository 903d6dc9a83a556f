//! `csrctl create`, `get`, `list`, `delete`, `restore`, `rename` and `rekey`.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    id, key,
    show::{WaitArgs, show, show_set},
    text,
};
use crate::{
    client::{Client, Request},
    failure::{Class, Failure},
    output::{Form, print_json, print_lines, print_table},
};

const COLUMNS: [&str; 6] = ["id", "status", "key_type", "common_name", "name", "created_at"];

/// What a custom CSR is made of.
#[derive(Args)]
pub struct CreateArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    made: MadeArgs,
}

/// Whom it is for.
#[derive(Args)]
pub struct SubjectArgs {
    /// The common name; public CAs want it to be one of the SANs
    #[arg(long, value_name = "NAME")]
    cn: Option<String>,
    /// A subject alternative name (SAN); give one for each. Without any, the common name
    #[arg(long = "san", value_name = "NAME")]
    sans: Vec<String>,
    /// The country's two-letter code (ISO 3166-1)
    #[arg(long, value_name = "CODE")]
    country: Option<String>,
    /// The state or province
    #[arg(long, value_name = "TEXT")]
    state: Option<String>,
    /// The city or place
    #[arg(long, value_name = "TEXT")]
    locality: Option<String>,
    /// The organization
    #[arg(long, value_name = "TEXT")]
    organization: Option<String>,
    /// The organizational unit
    #[arg(long, value_name = "TEXT")]
    organizational_unit: Option<String>,
}

/// What a new custom CSR may be given, however it is made.
#[derive(Args)]
pub struct MadeArgs {
    /// The key pair to make: rsa2048, p256v1, or another one that the service accepts
    #[arg(long, value_name = "TYPE")]
    key_type: Option<String>,
    #[command(flatten)]
    given: GivenArgs,
}

/// What is given with it, whatever its key.
#[derive(Args)]
pub struct GivenArgs {
    /// Your own name for it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// A description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Makes the command safe to repeat for 24 hours: with the same key nothing is made twice. Without it, one is made up
    #[arg(long, value_name = "KEY", value_parser = key)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Which custom CSR, and whether to wait for it.
#[derive(Args)]
pub struct GetArgs {
    /// The custom CSR's ID
    #[arg(value_parser = id)]
    id: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Which custom CSRs to list: those that fit all of this.
#[derive(Args)]
pub struct ListArgs {
    /// Only those that are pending, active or failed
    #[arg(long)]
    status: Option<String>,
    /// Only those with such a key
    #[arg(long, value_name = "TYPE")]
    key_type: Option<String>,
    /// Only those with this text in the name, the common name or a SAN
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only those of this set
    #[arg(long, value_name = "ID")]
    set_id: Option<String>,
    /// Sort by `created_at`, `name` or `account_tag`
    #[arg(long, value_name = "MEMBER")]
    order: Option<String>,
    /// Sort up (`asc`) or down (`desc`)
    #[arg(long)]
    direction: Option<String>,
    /// The first so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// What to delete.
#[derive(Args)]
pub struct DeleteArgs {
    /// The IDs
    #[arg(required = true, value_name = "ID", value_parser = id)]
    pub ids: Vec<String>,
}

/// Which custom CSRs to delete, and when to destroy their keys.
#[derive(Args)]
pub struct DeleteCsrsArgs {
    #[command(flatten)]
    which: DeleteArgs,
    /// Destroy the private keys at once, even of custom CSRs that were deleted before and can still be restored
    #[arg(long)]
    now: bool,
}

/// What to bring back.
#[derive(Args)]
pub struct RestoreArgs {
    /// The IDs
    #[arg(required = true, value_name = "ID", value_parser = id)]
    ids: Vec<String>,
}

/// What is called what.
#[derive(Args)]
pub struct RenameArgs {
    /// The custom CSR's ID
    #[arg(value_parser = id)]
    id: String,
    /// The new name; an empty one removes the name
    name: String,
    /// A new description; an empty one removes it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Of which custom CSR to make another one.
#[derive(Args)]
pub struct RekeyArgs {
    /// The ID of the custom CSR that it replaces, which stays until it is deleted. Of one of a set, the whole set is rekeyed
    #[arg(value_parser = id)]
    id: String,
    #[command(flatten)]
    made: MadeArgs,
}

impl SubjectArgs {
    /// The members that it stands for.
    pub fn members(self) -> Members {
        let Self { cn, sans, country, state, locality, organization, organizational_unit } = self;
        let sans = if sans.is_empty() { cn.iter().cloned().collect() } else { sans };
        members([
            ("country", json!(country)),
            ("state", json!(state)),
            ("locality", json!(locality)),
            ("organization", json!(organization)),
            ("organizational_unit", json!(organizational_unit)),
            ("common_name", json!(cn)),
            ("sans", json!(sans)),
        ])
    }
}

/// Members of a body.
pub type Members = Map<String, Value>;

fn members<const N: usize>(pairs: [(&str, Value); N]) -> Members {
    pairs.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// Makes a custom CSR.
pub async fn create(client: &Client, form: Form, args: CreateArgs) -> Result<(), Failure> {
    let CreateArgs { subject, made: MadeArgs { key_type, given } } = args;
    let mut body = subject.members();
    body.extend(members([("key_type", json!(key_type))]));
    make(client, form, &["custom_csrs"], body, given).await
}

/// Makes a custom CSR with the same names and a new key.
pub async fn rekey(client: &Client, form: Form, args: RekeyArgs) -> Result<(), Failure> {
    let MadeArgs { key_type, given } = args.made;
    make(client, form, &["custom_csrs", &args.id, "rekey"], members([("key_type", json!(key_type))]), given).await
}

/// Makes what a body asks for, and shows it.
pub async fn make(client: &Client, form: Form, path: &[&str], mut body: Members, given: GivenArgs) -> Result<(), Failure> {
    let GivenArgs { name, description, idempotency_key, wait } = given;
    body.extend(members([("name", json!(name)), ("description", json!(description))]));
    body.retain(|_, value| !value.is_null());
    let key = idempotency_key.unwrap_or_else(|| Uuid::now_v7().to_string());
    let names = [("common_name", "--cn"), ("sans", "--san")];
    let request = Request::new(Method::POST, path).body(Value::Object(body), &names).idempotent_by(&key);
    let made = client.send(&request).await.map_err(|failure| repeatable(failure, &key))?.result;
    match made {
        Value::Array(set) => show_set(client, form, &wait, set).await,
        one => show(client, form, &wait, one).await,
    }
}

/// Where it is unknown whether something was made: how to find out.
pub fn repeatable(mut failure: Failure, key: &str) -> Failure {
    if failure.class == Class::Unreachable {
        failure.lines.push(format!("repeat the command with --idempotency-key {key}: then nothing is made twice"));
    }
    failure
}

/// Prints a custom CSR.
pub async fn get(client: &Client, form: Form, args: GetArgs) -> Result<(), Failure> {
    let found = client.send(&Request::new(Method::GET, ["custom_csrs", args.id.as_str()])).await?.result;
    show(client, form, &args.wait, found).await
}

/// Prints custom CSRs, newest first unless told otherwise.
pub async fn list(client: &Client, form: Form, args: ListArgs) -> Result<(), Failure> {
    let ListArgs { status, key_type, search, set_id, order, direction, limit } = args;
    let request = || {
        let request = Request::new(Method::GET, ["custom_csrs"]);
        let request = request.query("status", status.as_ref()).query("key_type", key_type.as_ref()).query("search", search.as_ref());
        let request = request.query("set_id", set_id.as_ref());
        request.query("order", order.as_ref()).query("direction", direction.as_ref())
    };
    super::list(client, form, &COLUMNS, limit, request).await
}

/// Deletes custom CSRs.
pub async fn delete(client: &Client, form: Form, args: DeleteCsrsArgs) -> Result<(), Failure> {
    let now = args.now.then_some("true");
    super::delete_by(client, form, &args.which.ids, |id| Request::new(Method::DELETE, ["custom_csrs", id]).query("now", now)).await
}

/// Restores custom CSRs. One that cannot be restored keeps none of the others.
pub async fn restore(client: &Client, form: Form, args: RestoreArgs) -> Result<(), Failure> {
    let restored = async |id: &str| {
        let restored = client.send(&Request::new(Method::POST, ["custom_csrs", id, "restore"]).idempotent()).await?.result;
        match form {
            Form::Json => print_json(&restored),
            Form::Table => print_lines(&format!("restored {}", text(&restored, "id"))),
        }
    };
    super::each(&args.ids, restored).await
}

/// Changes a custom CSR's name and description.
pub async fn rename(client: &Client, form: Form, args: RenameArgs) -> Result<(), Failure> {
    let mut body = Map::from_iter([("name".to_owned(), json!(args.name))]);
    body.extend(args.description.map(|description| ("description".to_owned(), json!(description))));
    let request = Request::new(Method::PATCH, ["custom_csrs", args.id.as_str()]).body(Value::Object(body), &[("name", "NAME")]);
    let renamed = client.send(&request).await?.result;
    match form {
        Form::Json => print_json(&renamed),
        Form::Table => print_table(&[renamed], &COLUMNS),
    }
}
