//! `csrd audit`: who did what.

mod archive;

use std::{
    io::{BufRead, BufReader, Seek, Write},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use shared::{
    audit::{Action, Entry, Replaced},
    clock::{Clock, SystemClock, Timestamp},
    ids::TenantId,
    printable::escape,
    storage::{AuditQuery, Store},
};
use tempfile::SpooledTempFile;
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::{
    database::DatabaseArgs,
    scopes::tenant_id,
    settings::{Output, duration},
};

/// What is kept in memory of what is to be printed, in bytes; more goes to a temporary file that has no name.
const MEMORY: usize = 4 * 1024 * 1024;

/// Which entries to print.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    #[command(subcommand)]
    action: Option<AuditAction>,
    #[command(flatten)]
    list: ListArgs,
}

/// `csrd audit …`
#[derive(Subcommand)]
pub enum AuditAction {
    /// Move old entries to a file: the one way to make the table smaller
    Archive(archive::ArchiveArgs),
}

/// Which entries to print: those that fit all of this.
#[derive(Args)]
pub struct ListArgs {
    /// Not before this time: `2026-11-25T12:00:00Z`, `2026-11-25`, or so long ago, as `24h`
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Before this time, written likewise
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Only those of this zone, and of all zones at once; with --account, those of either
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    zone: Option<TenantId>,
    /// Only those of this account, and of all accounts at once
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    account: Option<TenantId>,
    /// Only those by this token subject, or by `os:USER`
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only those on this action, such as `create` or `export`
    #[arg(long, value_parser = action)]
    action: Option<Action>,
    /// At most so many, the oldest of them
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    limit: Option<u64>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Parses a full time, a day, or an age.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = duration(text) {
        return Ok(SystemClock.now().minus(ago));
    }
    let day = || Date::parse(text, format_description!("[year]-[month]-[day]")).map(|day| day.midnight().assume_utc());
    let at = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| day());
    let at = at.map_err(|_| "a time such as 2026-11-25T12:00:00Z or 2026-11-25, or a duration such as 24h is expected".to_owned())?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000).map(Timestamp::from_micros).map_err(|_| "no such time".to_owned())
}

fn action(word: &str) -> Result<Action, String> {
    Action::parse(word).ok_or_else(|| format!("an action is one of {}", Action::ALL.map(Action::as_str).join(", ")))
}

/// Runs `csrd audit …`.
pub async fn audit(args: AuditArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        Some(AuditAction::Archive(args)) => archive::archive(args).await,
        None => list(args.list).await,
    }
}

/// Prints the entries as lines of JSON, the oldest first.
async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let ListArgs { since, until, zone, account, who, action, limit, database } = args;
    let all = AuditQuery::default();
    let (since, until, limit) = (since.unwrap_or(all.since), until.unwrap_or(all.until), limit.unwrap_or(all.limit));
    let database = database.open().await?;
    let lines = read(&*database.store, AuditQuery { since, until, zone, account, who, action, limit }).await?;
    database.close().await;
    let mut output = Output::new();
    for line in BufReader::new(lines).lines() {
        output.line(&line?)?;
        if output.is_closed() {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads all that is to be printed before any of it is: whoever pages through it must not hold a transaction open meanwhile.
async fn read(store: &dyn Store, query: AuditQuery) -> anyhow::Result<SpooledTempFile> {
    let mut lines = tempfile::spooled_tempfile(MEMORY);
    let mut run = store.read_audit(query).await?;
    loop {
        let entries = run.next().await?;
        if entries.is_empty() {
            lines.rewind()?;
            return Ok(lines);
        }
        let mut page = String::new();
        for entry in &entries {
            page.push_str(&line(entry));
            page.push('\n');
        }
        lines.write_all(page.as_bytes())?;
    }
}

/// An entry as JSON, in which everything that a terminal or a line reader would act on is escaped.
fn line(entry: &Entry) -> String {
    escape(&Value::Object(fields(entry)).to_string()).into_owned()
}

fn fields(entry: &Entry) -> Map<String, Value> {
    let Entry { number: _, at, actor, action, resource, scope, replaced } = entry;
    let (kind, id) = scope.parts();
    let custom_csrs =
        replaced.map(|Replaced { old, new }| [("old_custom_csr_id", json!(old.to_string())), ("custom_csr_id", json!(new.to_string()))]);
    let fields = [
        ("at", json!(at.rfc3339())),
        ("who", json!(actor.who)),
        ("via", json!(actor.via.as_str())),
        ("from", json!(actor.from)),
        ("action", json!(action)),
        ("resource", json!(resource)),
        (kind, json!(id)),
        ("request_id", json!(actor.request_id)),
    ];
    fields.into_iter().chain(custom_csrs.into_iter().flatten()).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_full_as_a_day_or_as_so_long_ago() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(Timestamp::from_micros(1_000_000)));
        assert_eq!(time("1970-01-02"), Ok(Timestamp::from_micros(86_400_000_000)));
        let day_ago = SystemClock.now().minus(std::time::Duration::from_hours(24));
        assert!(time("24h").unwrap() >= day_ago && time("24h").unwrap() < SystemClock.now());
        assert!(time("yesterday").is_err() && time("2026-13-01").is_err());
    }
}
