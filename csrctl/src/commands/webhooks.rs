//! `csrctl webhooks`.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{custom_csrs::DeleteArgs, id};
use crate::{
    client::{Client, Request},
    failure::Failure,
    output::{Form, print_json, print_object, print_table},
};

const MEMBERS: [&str; 8] = ["id", "url", "events", "description", "enabled", "disabled_reason", "created_at", "secret"];
const COLUMNS: [&str; 5] = ["id", "enabled", "url", "events", "disabled_reason"];
const DELIVERY_COLUMNS: [&str; 6] = ["id", "event", "status", "attempts", "response_status", "next_attempt_at"];

/// `csrctl webhooks …`
#[derive(Args)]
pub struct WebhooksArgs {
    #[command(subcommand)]
    action: Option<WebhooksAction>,
}

#[derive(Subcommand)]
enum WebhooksAction {
    /// Show one webhook
    Get(IdArgs),
    /// Make a webhook, and print the secret that verifies its signatures, this once
    Create(CreateArgs),
    /// Change a webhook; the secret stays
    Edit(EditArgs),
    /// Delete webhooks
    Delete(DeleteArgs),
    /// Have a webhook told an event of the type `ping`
    Ping(IdArgs),
    /// List what a webhook was told lately, and how that went
    Deliveries(IdArgs),
}

#[derive(Args)]
struct IdArgs {
    /// The webhook's ID
    #[arg(value_parser = id)]
    id: String,
}

#[derive(Args)]
struct CreateArgs {
    /// Where events are posted to: https, to a public address
    #[arg(long)]
    url: Option<String>,
    /// A type of events, such as `custom_csr.active`, or `*` for all; give one for each
    #[arg(long = "event", value_name = "TYPE")]
    events: Vec<String>,
    /// A description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// It is told of no events until it is enabled
    #[arg(long)]
    disabled: bool,
}

#[derive(Args)]
struct EditArgs {
    /// The webhook's ID
    #[arg(value_parser = id)]
    id: String,
    /// Where events are posted to
    #[arg(long)]
    url: Option<String>,
    /// A type of events, such as `custom_csr.active`, or `*` for all; those that are given replace all before
    #[arg(long = "event", value_name = "TYPE")]
    events: Vec<String>,
    /// A description; an empty one removes it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// It is told of events again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// It is told of no events
    #[arg(long)]
    disable: bool,
}

/// Runs `csrctl webhooks …`.
pub async fn run(client: &Client, form: Form, args: WebhooksArgs) -> Result<(), Failure> {
    match args.action {
        None => list(client, form, &["webhooks"], &COLUMNS).await,
        Some(WebhooksAction::Get(IdArgs { id })) => show(form, &get(client, &id).await?),
        Some(WebhooksAction::Create(args)) => {
            let CreateArgs { url, events, description, disabled } = args;
            let enabled = disabled.then_some(false);
            let made = change(client, Method::POST, &["webhooks"], url, events, description, enabled).await?;
            show(form, &made)
        }
        Some(WebhooksAction::Edit(args)) => {
            let EditArgs { id, url, events, description, enable, disable } = args;
            let enabled = if enable { Some(true) } else { disable.then_some(false) };
            if url.is_none() && events.is_empty() && description.is_none() && enabled.is_none() {
                return Err(Failure::usage("there is nothing to change: give --url, --event, --description, --enable or --disable"));
            }
            let changed = change(client, Method::PATCH, &["webhooks", &id], url, events, description, enabled).await?;
            show(form, &changed)
        }
        Some(WebhooksAction::Delete(DeleteArgs { ids })) => super::delete(client, form, "webhooks", &ids).await,
        Some(WebhooksAction::Ping(IdArgs { id })) => {
            let delivery = client.send(&Request::new(Method::POST, ["webhooks", id.as_str(), "ping"])).await?.result;
            match form {
                Form::Json => print_json(&delivery),
                Form::Table => print_table(&[delivery], &DELIVERY_COLUMNS),
            }
        }
        Some(WebhooksAction::Deliveries(IdArgs { id })) => list(client, form, &["webhooks", &id, "deliveries"], &DELIVERY_COLUMNS).await,
    }
}

async fn get(client: &Client, id: &str) -> Result<Value, Failure> {
    Ok(client.send(&Request::new(Method::GET, ["webhooks", id])).await?.result)
}

/// Makes or changes a webhook; what is not given is left out.
async fn change(
    client: &Client,
    method: Method,
    path: &[&str],
    url: Option<String>,
    events: Vec<String>,
    description: Option<String>,
    enabled: Option<bool>,
) -> Result<Value, Failure> {
    let events = (!events.is_empty()).then_some(events);
    let members = [("url", json!(url)), ("events", json!(events)), ("description", json!(description)), ("enabled", json!(enabled))];
    let body: Map<_, _> = members.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect();
    let request = Request::new(method, path).body(Value::Object(body), &[("events", "--event")]);
    Ok(client.send(&request).await?.result)
}

/// Prints a list that has one page.
async fn list(client: &Client, form: Form, path: &[&str], columns: &[&str]) -> Result<(), Failure> {
    let found = client.send(&Request::new(Method::GET, path)).await?.result;
    let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
    match form {
        Form::Json => found.iter().try_for_each(print_json),
        Form::Table => print_table(found, columns),
    }
}

fn show(form: Form, webhook: &Value) -> Result<(), Failure> {
    let members: Vec<_> = MEMBERS.into_iter().filter(|name| !webhook[*name].is_null()).collect();
    print_object(form, webhook, &members)
}
