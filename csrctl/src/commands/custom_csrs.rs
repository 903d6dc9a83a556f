//! `csrctl create`, `get`, `list`, `delete`, `restore`, `rename`, `rekey` and `watch`.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{all, id, key, text};
use crate::{
    client::{Client, Request},
    failure::{Class, Failure},
    output::{Form, print, print_json, print_lines, print_object, print_table},
    wait::Wait,
};

/// What the table of one custom CSR shows; its CSR stands below.
const MEMBERS: [&str; 17] = [
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
    "custom_certificate_ids",
];
const COLUMNS: [&str; 6] = ["id", "status", "key_type", "common_name", "name", "created_at"];

/// What a custom CSR is made of.
#[derive(Args)]
pub struct CreateArgs {
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
    #[command(flatten)]
    made: MadeArgs,
}

/// What a new custom CSR may be given, however it is made.
#[derive(Args)]
pub struct MadeArgs {
    /// The key pair to make: rsa2048, p256v1, or another one that the service accepts
    #[arg(long, value_name = "TYPE")]
    key_type: Option<String>,
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
    /// The ID of the custom CSR that it replaces, which stays until it is deleted
    #[arg(value_parser = id)]
    id: String,
    #[command(flatten)]
    made: MadeArgs,
}

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

/// Reads a time such as `30s`.
pub fn time(text: &str) -> Result<Duration, String> {
    // What no clock counts up to is a slip.
    const MAX: Duration = Duration::from_hours(365 * 24);
    let parsed = humantime::parse_duration(text).map_err(|error| format!("{error}; write a time such as 30s, 5m or 1h"))?;
    if parsed <= MAX { Ok(parsed) } else { Err("this is over a year".to_owned()) }
}

/// Makes a custom CSR.
pub async fn create(client: &Client, form: Form, args: CreateArgs) -> Result<(), Failure> {
    let CreateArgs { cn, sans, country, state, locality, organization, organizational_unit, made } = args;
    let sans = if sans.is_empty() { cn.iter().cloned().collect() } else { sans };
    let body = json!({
        "country": country, "state": state, "locality": locality, "organization": organization,
        "organizational_unit": organizational_unit, "common_name": cn, "sans": sans,
    });
    make(client, form, &["custom_csrs"], body, made).await
}

/// Makes a custom CSR with the same names and a new key.
pub async fn rekey(client: &Client, form: Form, args: RekeyArgs) -> Result<(), Failure> {
    make(client, form, &["custom_csrs", &args.id, "rekey"], json!({}), args.made).await
}

async fn make(client: &Client, form: Form, path: &[&str], body: Value, args: MadeArgs) -> Result<(), Failure> {
    let MadeArgs { key_type, name, description, idempotency_key, wait } = args;
    let mut members = body.as_object().cloned().unwrap_or_default();
    members.extend(
        [("key_type", key_type), ("name", name), ("description", description)].map(|(name, value)| (name.to_owned(), json!(value))),
    );
    members.retain(|_, value| !value.is_null());
    let key = idempotency_key.unwrap_or_else(|| Uuid::now_v7().to_string());
    let names = [("common_name", "--cn"), ("sans", "--san")];
    let request = Request::new(Method::POST, path).body(Value::Object(members), &names).idempotent_by(&key);
    let made = client.send(&request).await.map_err(|failure| repeatable(failure, &key))?.result;
    show(client, form, &wait, made).await
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

/// Waits if so told, and prints a custom CSR, whatever the wait comes to: its ID must not be lost.
async fn show(client: &Client, form: Form, args: &WaitArgs, csr: Value) -> Result<(), Failure> {
    let bound = args.wait.or_else(|| args.csr.then_some(Duration::from_mins(5)));
    let (csr, failure) = match bound {
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

/// Prints custom CSRs, newest first unless told otherwise.
pub async fn list(client: &Client, form: Form, args: ListArgs) -> Result<(), Failure> {
    let ListArgs { status, key_type, search, order, direction, limit } = args;
    let request = || {
        let request = Request::new(Method::GET, ["custom_csrs"]);
        let request = request.query("status", status.as_ref()).query("key_type", key_type.as_ref()).query("search", search.as_ref());
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
    let mut found = Vec::new();
    for page in 1_u32.. {
        let request = Request::new(Method::GET, ["custom_csrs"]).query("status", Some("pending")).query("direction", Some("asc"));
        let answer = client.send(&request.query("page", Some(page)).query("per_page", Some(super::PAGE))).await?;
        found.extend(answer.result.as_array().cloned().unwrap_or_default());
        if u64::from(page) >= answer.result_info["total_pages"].as_u64().unwrap_or(1) {
            break;
        }
    }
    Ok(found)
}
