//! `csrd incident`: rekeys many custom CSRs at once, for when a CA is distrusted or a type of key turns out to be weak.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use api::secret_file::{self, Content};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use shared::{
    clock::{Clock, SystemClock, Timestamp},
    ids::{CustomCsrId, IncidentId},
    incident::{Candidate, Filters, Incident, IncidentStatus, Progress, Rekey},
    printable::escape,
    storage::{NewIncident, PlannedCertificate, Store},
    x509::provenance::KnownKey,
};

use super::{
    actor,
    audit::time,
    bad_setting,
    database::DatabaseArgs,
    listing::{ListArgs, Listing},
    settings::{complain, duration, say},
};

/// Rows to read at a time.
const BATCH: u32 = 200;
/// A worker that was seen within this time counts as alive.
const SEEN_WITHIN: Duration = Duration::from_mins(1);
/// The allowed rates, in rekeys a second.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;

/// `csrd incident …`
#[derive(Subcommand)]
pub enum IncidentAction {
    /// List the certificates that match all the given filters, and store them as a plan; changes nothing else
    Plan(PlanArgs),
    /// Have the workers rekey the custom CSRs of a plan, or continue; returns at once
    Start(StartArgs),
    /// Show the progress of a plan, or of all plans
    Status(StatusArgs),
    /// Stop the rekeys of a plan; what is done stays
    Stop(StopArgs),
}

/// Which certificates. Expired ones never count.
#[derive(Args)]
pub struct PlanArgs {
    /// Issued by a CA whose name contains this text, in any case, or by a CA below it
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,
    /// For the public key in this file, or signed with its private key; the file holds a public key or a certificate, in PEM or DER
    #[arg(long, value_name = "FILE")]
    spki_file: Option<PathBuf>,
    /// Issued (notBefore) before this time: `2026-11-25T12:00:00Z`, `2026-11-25`, or an age such as `24h`
    #[arg(long, value_name = "TIME", value_parser = time)]
    issued_before: Option<Timestamp>,
    /// For a private key that was requested at least this long ago, such as `90d`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    key_age: Option<Duration>,
    /// For a host like this, such as `*.example.com`, where `*` stands for any characters
    #[arg(long, value_name = "PATTERN")]
    host: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Which plan, and how fast.
#[derive(Args)]
pub struct StartArgs {
    /// The plan's ID
    #[arg(value_name = "PLAN-ID", value_parser = plan_id)]
    id: IncidentId,
    /// The most rekeys a second of all workers together; 0 sets no limit. Without it, the plan keeps its limit, which is none at first
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = pause)]
    rate: Option<Duration>,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Which plan.
#[derive(Args)]
pub struct StopArgs {
    /// The plan's ID
    #[arg(value_name = "PLAN-ID", value_parser = plan_id)]
    id: IncidentId,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Which plan, and what to show.
#[derive(Args)]
pub struct StatusArgs {
    /// The plan's ID; without it, all plans are listed
    #[arg(value_name = "PLAN-ID", value_parser = plan_id)]
    id: Option<IncidentId>,
    /// List each custom CSR of the plan with what became of it
    #[arg(long, requires = "id")]
    list: bool,
    #[command(flatten)]
    output: ListArgs,
}

fn plan_id(text: &str) -> Result<IncidentId, String> {
    IncidentId::parse(text).ok_or_else(|| "that is no ID of a plan: csrd incident status has them".to_owned())
}

/// The time between two rekeys at this rate.
fn pause(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(Duration::ZERO),
        Ok(rate) if RATES.contains(&rate) => Ok(Duration::from_secs_f64(1.0 / rate)),
        _ => Err(format!("write rekeys a second, from {} to {}, or 0 for no limit", RATES.start(), RATES.end())),
    }
}

/// The rate with this time between two rekeys.
fn rate(pause: Duration) -> f64 {
    (1_000.0 / pause.as_secs_f64()).round() / 1_000.0
}

/// Runs `csrd incident …`.
pub async fn run(action: IncidentAction) -> anyhow::Result<ExitCode> {
    match action {
        IncidentAction::Plan(args) => plan(args).await,
        IncidentAction::Start(args) => start(&args).await,
        IncidentAction::Status(args) => status(&args).await,
        IncidentAction::Stop(args) => stop(&args).await,
    }
}

impl PlanArgs {
    fn filters(&self, now: Timestamp) -> anyhow::Result<Filters> {
        let key = self.spki_file.as_ref().map(|path| {
            let bytes = secret_file::read(path, Content::Public).map_err(|error| bad_setting(format!("--spki-file: {error}")))?;
            KnownKey::parse(&bytes).map_err(|error| bad_setting(format!("--spki-file: {} {error}", path.display())))
        });
        let filters = Filters {
            issuer: self.issuer.clone().filter(|text| !text.trim().is_empty()),
            key: key.transpose()?,
            issued_before: self.issued_before,
            key_made_before: self.key_age.map(|age| now.minus(age)),
            host: self.host.clone().filter(|pattern| !pattern.trim().is_empty()),
        };
        if filters.is_empty() {
            return Err(bad_setting(
                "a plan needs a filter: give one or more of --issuer, --spki-file, --issued-before, --key-age and --host (`--host '*'` is for all)",
            ));
        }
        Ok(filters)
    }
}

async fn plan(args: PlanArgs) -> anyhow::Result<ExitCode> {
    let now = SystemClock.now();
    let filters = args.filters(now)?;
    let database = args.list.database.open().await?;
    let candidates = fitting(&*database.store, &filters, now).await?;
    let new = NewIncident {
        id: IncidentId::new(now),
        filters: filters.json(),
        certificates: candidates
            .iter()
            .map(|Candidate { id, zone, custom_csr_id, scope, .. }| PlannedCertificate {
                id: *id,
                zone: zone.clone(),
                custom_csr_id: *custom_csr_id,
                scope: scope.clone(),
            })
            .collect(),
    };
    database.store.create_incident(&new, &actor::local(), now).await?;
    let made = database.store.find_incident(new.id).await?;
    database.close().await;
    let custom_csrs = made.map(|made| made.progress.custom_csrs).unwrap_or_default();
    if args.list.json {
        let certificates: Vec<_> = candidates.iter().map(certificate).collect();
        let plan = json!({
            "id": new.id.to_string(), "status": IncidentStatus::Planned.as_str(), "created_at": now.rfc3339(), "filters": new.filters,
            "custom_csrs": custom_csrs, "certificates": certificates,
        });
        say(&escape(&plan.to_string()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut listing = Listing::new(&args.list, ["certificate", "zone", "custom_csr", "scope", "expires", "issuer", "hosts"]);
    for page in candidates.chunks(BATCH as usize) {
        listing.page(
            page.iter()
                .map(|candidate| {
                    let Candidate { id, zone, hosts, issuer, not_after, custom_csr_id, scope, .. } = candidate;
                    let (id, zone, csr) = (id.to_string(), zone.id().to_string(), custom_csr_id.to_string());
                    [json!(id), json!(zone), json!(csr), json!(scope.to_string()), json!(not_after.rfc3339()), json!(issuer), json!(hosts)]
                })
                .collect(),
        )?;
    }
    say(&format!(
        "plan {}: {} certificates of {custom_csrs} custom CSRs; nothing is changed before csrd incident start {}",
        new.id,
        candidates.len(),
        new.id
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The matching certificates, without their chains.
async fn fitting(store: &dyn Store, filters: &Filters, now: Timestamp) -> anyhow::Result<Vec<Candidate>> {
    let (mut fitting, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_candidates(after, BATCH, now).await?;
        let Some(last) = page.last() else { return Ok(fitting) };
        after = Some(last.id);
        let found = page.into_iter().filter(|candidate| filters.fit(candidate));
        fitting.extend(found.map(|candidate| Candidate { chain_pem: String::new(), ..candidate }));
    }
}

fn certificate(candidate: &Candidate) -> Value {
    let Candidate { id, zone, hosts, issuer, not_after, custom_csr_id, scope, .. } = candidate;
    json!({
        "id": id.to_string(), "zone": zone.id().as_str(), "custom_csr": custom_csr_id.to_string(), "scope": scope.to_string(),
        "expires": not_after.rfc3339(), "issuer": issuer, "hosts": hosts,
    })
}

fn unknown(id: IncidentId) -> ExitCode {
    complain(&format!("there is no plan {id}: see csrd incident status"));
    ExitCode::FAILURE
}

async fn start(args: &StartArgs) -> anyhow::Result<ExitCode> {
    let (id, now) = (args.id, SystemClock.now());
    let database = args.database.open().await?;
    let before = database.store.start_incident(id, args.rate, &actor::local(), now).await?;
    let workers = database.store.vitals(SEEN_WITHIN).await?.workers;
    database.close().await;
    match before {
        None => return Ok(unknown(id)),
        Some(IncidentStatus::Done) => say(&format!("plan {id} is done: nothing is left to rekey"))?,
        Some(_) => {
            if workers == 0 {
                complain("no worker was seen in the last minute: the plan waits for one");
            }
            say(&format!("plan {id} runs: csrd incident status {id} shows how far it is"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    let id = args.id;
    let database = args.database.open().await?;
    let before = database.store.stop_incident(id, &actor::local(), SystemClock.now()).await?;
    database.close().await;
    match before {
        None => return Ok(unknown(id)),
        Some(IncidentStatus::Running) => say(&format!("plan {id} is stopped: csrd incident start {id} goes on with it"))?,
        Some(before) => say(&format!("plan {id} does not run: it is {}", before.as_str()))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let database = args.output.database.open().await?;
    let incidents = match args.id {
        Some(id) => database.store.find_incident(id).await?.into_iter().collect(),
        None => database.store.list_incidents().await?,
    };
    if let (Some(id), []) = (args.id, incidents.as_slice()) {
        database.close().await;
        return Ok(unknown(id));
    }
    if let (Some(id), true) = (args.id, args.list) {
        list_rekeys(&*database.store, id, &args.output).await?;
    } else if args.output.json {
        for incident in &incidents {
            say(&escape(&object(incident).to_string()))?;
        }
    } else if args.id.is_some() {
        for incident in &incidents {
            say(&text(incident))?;
        }
    } else {
        let columns = ["id", "status", "created", "certificates", "custom_csrs", "rekeyed", "active", "skipped", "left"];
        Listing::new(&args.output, columns).page(incidents.iter().map(row).collect())?;
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn list_rekeys(store: &dyn Store, id: IncidentId, args: &ListArgs) -> anyhow::Result<()> {
    let mut listing = Listing::new(args, ["custom_csr", "scope", "state", "reason", "new_custom_csr"]);
    let mut after: Option<CustomCsrId> = None;
    loop {
        let page = store.list_rekeys(id, after, BATCH).await?;
        let Some(last) = page.last().filter(|_| !listing.is_closed()) else { return Ok(()) };
        after = Some(last.custom_csr_id);
        let row = |rekey: &Rekey| {
            let Rekey { custom_csr_id, scope, state, reason, new_custom_csr_id } = rekey;
            let new = new_custom_csr_id.map(|id| id.to_string());
            [json!(custom_csr_id.to_string()), json!(scope.to_string()), json!(state), json!(reason), json!(new)]
        };
        listing.page(page.iter().map(row).collect())?;
    }
}

fn row(incident: &Incident) -> [Value; 9] {
    let Progress { certificates, custom_csrs, planned, rekeyed, skipped, active, .. } = incident.progress;
    let (id, status, created) = (incident.id.to_string(), incident.status.as_str(), incident.created_at.rfc3339());
    let counts = [certificates, custom_csrs, rekeyed, active, skipped, planned].map(|count| json!(count));
    let [certificates, custom_csrs, rekeyed, active, skipped, left] = counts;
    [json!(id), json!(status), json!(created), certificates, custom_csrs, rekeyed, active, skipped, left]
}

fn object(incident: &Incident) -> Value {
    let Incident { id, status, filters, created_at, started_at, ended_at, pause, progress } = incident;
    let Progress { certificates, custom_csrs, planned, rekeyed, skipped, pending, active, failed, deleted } = progress;
    let time = |time: &Option<Timestamp>| time.map(Timestamp::rfc3339);
    json!({
        "id": id.to_string(), "status": status.as_str(), "filters": filters, "created_at": created_at.rfc3339(),
        "started_at": time(started_at), "ended_at": time(ended_at), "rate": pause.map(rate), "certificates": certificates,
        "custom_csrs": custom_csrs, "left": planned, "rekeyed": rekeyed, "skipped": skipped, "pending": pending, "active": active,
        "failed": failed, "deleted": deleted,
    })
}

fn text(incident: &Incident) -> String {
    let Incident { id, status, filters, created_at, started_at, ended_at, pause, progress } = incident;
    let Progress { certificates, custom_csrs, planned, rekeyed, skipped, pending, active, failed, deleted } = progress;
    let moment = |word: &str, time: Option<Timestamp>| time.map(|time| format!(", {word} {}", time.rfc3339())).unwrap_or_default();
    let filters: Vec<_> =
        filters.as_object().into_iter().flatten().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
    let limit = pause.map(|pause| format!(", at most {} rekeys a second", rate(pause))).unwrap_or_default();
    let lines = [
        format!("plan {id}: {}{limit}", status.as_str()),
        format!("made {}{}{}", created_at.rfc3339(), moment("started", *started_at), moment("ended", *ended_at)),
        format!("certificates with {}", escape(&filters.join(", "))),
        format!("{certificates} certificates of {custom_csrs} custom CSRs: {rekeyed} rekeyed, {skipped} skipped, {planned} left"),
        format!("new custom CSRs: {active} active, {pending} pending, {failed} failed, {deleted} deleted since"),
    ];
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_of_rekeys_a_second_and_reads_back() {
        for (text, expected) in [("50", 50.0), ("3", 3.0), ("0.5", 0.5), ("10000", 10_000.0)] {
            let pause = pause(text).unwrap();
            assert!((rate(pause) - expected).abs() < 0.001, "{text}");
        }
        assert_eq!(pause("0"), Ok(Duration::ZERO));
        for bad in ["", "-1", "fast", "NaN", "inf", "10001", "1e-9"] {
            assert!(pause(bad).is_err(), "{bad}");
        }
    }
}
