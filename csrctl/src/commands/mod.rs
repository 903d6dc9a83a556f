//! One file for each subject.

pub mod certificates;
pub mod custom_csrs;
pub mod handover;
pub mod login;
pub mod quota;
pub mod renewal;
pub mod sets;
pub mod shell;
mod show;
mod time;
pub mod watch;
pub mod webhooks;

use std::collections::HashSet;

use reqwest::Method;
use serde_json::Value;

use crate::{
    client::{Client, Request},
    failure::{Class, Failure},
    output::{Form, print_json, print_table},
};

/// The most objects of one page.
const PAGE: u32 = 50;

/// Reads an ID for a path. What the service takes for an ID is its own affair, but for what leads to another place.
pub fn id(text: &str) -> Result<String, String> {
    if matches!(text, "" | "." | ".." | "quota") { Err("this is no ID".to_owned()) } else { Ok(text.to_owned()) }
}

/// Reads an Idempotency-Key that can be sent; how long it may be is the service's affair.
pub fn key(text: &str) -> Result<String, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(text.to_owned()) } else { Err("write visible ASCII characters".to_owned()) }
}

/// Prints all objects of a list, page by page, or the first `limit`.
pub async fn list(
    client: &Client,
    form: Form,
    members: &[&str],
    limit: Option<usize>,
    request: impl Fn() -> Request<'static>,
) -> Result<(), Failure> {
    let (mut objects, mut count) = (Vec::new(), 0);
    let limit = limit.unwrap_or(usize::MAX);
    each_object(client, request, |object| {
        if count < limit {
            count += 1;
            match form {
                Form::Json => print_json(&object)?,
                Form::Table => objects.push(object),
            }
        }
        Ok(count < limit)
    })
    .await?;
    if form == Form::Table { print_table(&objects, members) } else { Ok(()) }
}

/// All objects of a list.
async fn list_all<'a>(client: &Client, request: impl Fn() -> Request<'a>) -> Result<Vec<Value>, Failure> {
    let mut objects = Vec::new();
    each_object(client, request, |object| {
        objects.push(object);
        Ok(true)
    })
    .await?;
    Ok(objects)
}

/// Asks for the pages of a list, and gives each object once to `take`, until that returns false.
async fn each_object<'a>(
    client: &Client,
    request: impl Fn() -> Request<'a>,
    mut take: impl FnMut(Value) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    for page in 1_u32.. {
        let answer = client.send(&request().query("page", Some(page)).query("per_page", Some(PAGE))).await?;
        for object in answer.result.as_array().cloned().unwrap_or_default() {
            // What is made meanwhile moves objects to the next page, where they come again.
            let is_new = seen.insert(text(&object, "id").to_owned());
            if is_new && !take(object)? {
                return Ok(());
            }
        }
        if u64::from(page) >= answer.result_info["total_pages"].as_u64().unwrap_or(1) {
            break;
        }
    }
    Ok(())
}

/// Deletes what has these IDs. One that cannot be deleted keeps none of the others.
pub async fn delete(client: &Client, form: Form, collection: &'static str, ids: &[String]) -> Result<(), Failure> {
    delete_by(client, form, ids, |id| Request::new(Method::DELETE, [collection, id])).await
}

/// Sends such a DELETE for each of these IDs.
async fn delete_by<'a>(client: &Client, form: Form, ids: &'a [String], request: impl Fn(&'a str) -> Request<'a>) -> Result<(), Failure> {
    let deleted = async |id: &'a str| {
        let answer = client.send(&request(id)).await?;
        match form {
            Form::Json => print_json(&answer.result),
            Form::Table => crate::output::print_lines(&format!("deleted {}", answer.result["id"].as_str().unwrap_or(id))),
        }
    };
    each(ids, deleted).await
}

/// Does something for each of these IDs. After a failure it goes on with the others, unless they would fail too.
async fn each<'a>(ids: &'a [String], act: impl AsyncFn(&'a str) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    for id in ids {
        let Err(failure) = act(id).await else { continue };
        let is_fatal = matches!(failure.class, Class::Unreachable | Class::NotAllowed);
        failures.push(failure);
        if is_fatal {
            break;
        }
    }
    all(failures)
}

/// Several failures as one, with the class of the last.
pub fn all(failures: Vec<Failure>) -> Result<(), Failure> {
    let Some(class) = failures.last().map(|failure| failure.class) else { return Ok(()) };
    Err(Failure { class, lines: failures.into_iter().flat_map(|failure| failure.lines).collect() })
}

/// The value of a member that is a text.
pub fn text<'a>(object: &'a Value, member: &str) -> &'a str {
    object[member].as_str().unwrap_or_default()
}
