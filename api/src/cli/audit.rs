//! `csrd audit`: who did what.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};
use shared::{
    audit::Entry,
    clock::{Clock, SystemClock, Timestamp},
    ids::{Scope, TenantId},
    printable::escape,
    storage::AuditQuery,
};
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::{
    database::DatabaseArgs,
    scopes::tenant_id,
    settings::{Output, duration},
};

/// Entries that are read at once.
const BATCH: u32 = 1_000;

/// Which entries to print.
#[derive(Args)]
pub struct AuditArgs {
    /// Not before this time: `2026-11-25T12:00:00Z`, `2026-11-25`, or so long ago, as `24h`
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Only those of this zone, and of all zones at once
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    zone: Option<TenantId>,
    #[command(flatten)]
    database: DatabaseArgs,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = duration(text) {
        return Ok(SystemClock.now().minus(ago));
    }
    let day = || Date::parse(text, format_description!("[year]-[month]-[day]")).map(|day| day.midnight().assume_utc());
    let at = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| day());
    let at = at.map_err(|_| "a time such as 2026-11-25T12:00:00Z or 2026-11-25, or a duration such as 24h is expected".to_owned())?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000).map(Timestamp::from_micros).map_err(|_| "no such time".to_owned())
}

/// Prints the entries as lines of JSON, the oldest first.
pub async fn audit(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let database = args.database.open().await?;
    let since = args.since.unwrap_or(Timestamp::from_micros(i64::MIN));
    let mut query = AuditQuery { after: 0, since, zone: args.zone.map(Scope::Zone), limit: BATCH };
    let mut output = Output::new();
    loop {
        let entries = database.store.list_audit(&query).await?;
        let Some(last) = entries.last() else { break };
        query.after = last.number;
        for entry in &entries {
            output.line(&escape(&Value::Object(fields(entry)).to_string()))?;
        }
        if output.is_closed() {
            break;
        }
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

fn fields(entry: &Entry) -> Map<String, Value> {
    let Entry { number: _, at, actor, action, resource, scope } = entry;
    let (kind, id) = scope.parts();
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
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_full_as_a_day_or_as_so_long_ago() {
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(Timestamp::from_micros(1_000_000)));
        assert_eq!(since("1970-01-02"), Ok(Timestamp::from_micros(86_400_000_000)));
        let day_ago = SystemClock.now().minus(std::time::Duration::from_hours(24));
        assert!(since("24h").unwrap() >= day_ago && since("24h").unwrap() < SystemClock.now());
        assert!(since("yesterday").is_err() && since("2026-13-01").is_err());
    }
}
