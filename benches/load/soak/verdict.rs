//! What the database holds at the end beside what the clients were told, and what the processes hold beside what they held before.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use sqlx::{Connection, PgConnection, Row};

use shared::printable::hex;

use super::{
    Ended, Shared,
    authority::PublicKey,
    ledger::{Fate, Ledger},
    processes::{Fleet, Look, STEADY, Seen},
};
use crate::{
    numbers::{grouped, mib},
    postgres::output,
};

const MIB: u64 = 1024 * 1024;
/// Memory may differ by a tenth between two moments, or by so much.
const MEMORY_SLACK: u64 = 8 * MIB;
/// Connections come and go.
const DESCRIPTOR_SLACK: u64 = 16;
/// Rows that are named of those that are wrong.
const NAMED_MAX: usize = 10;

/// A custom CSR in the database.
struct Found {
    status: String,
    key: Option<Vec<u8>>,
    csr: Option<String>,
    about: String,
}

/// Lines of the table, and what must not be.
#[derive(Default)]
struct Verdict {
    lines: Vec<(String, String)>,
    broken: Vec<String>,
}

impl Verdict {
    #[expect(clippy::needless_pass_by_value, reason = "figures of all types are given as they are")]
    fn say(&mut self, what: &str, figure: impl ToString) {
        self.lines.push((what.to_owned(), figure.to_string()));
    }

    /// Something that there must be none of.
    fn none(&mut self, what: &str, count: u64) {
        self.say(what, if count == 0 { "0".to_owned() } else { format!("**{count}**") });
        if count > 0 {
            self.broken.push(format!("{what}: {count}"));
        }
    }
}

/// Judges when nothing runs any more that changes anything.
pub async fn judge(shared: &Shared, time: Duration) -> anyhow::Result<Ended> {
    let (server, database) = shared.fleet.installation().server()?;
    let mut connection = PgConnection::connect(&server.url(database)).await?;
    let mut verdict = Verdict::default();
    {
        let ledger = shared.ledger();
        verdict.say("time", humantime::format_duration(time));
        verdict.say("requests", format!("{}: {}", grouped_count(ledger.total_requests()), listed(&ledger.requests)));
        verdict.say("answers", listed(&ledger.answers));
        verdict.say("faults", format!("{}: {}", ledger.faults.values().sum::<u64>(), listed(&ledger.faults)));
        verdict.say(
            "master keys changed (`keys new`, `use`, `reseal`, `retire`)",
            format!(
                "{} times; steps that a fault or a worker that did not know yet held up and that were done again: {}",
                ledger.rotations, ledger.steps_again
            ),
        );
    }
    let rows = custom_csrs(&mut connection).await?;
    let certificates = certificates(&mut connection).await?;
    connection.close().await?;
    compare_csrs(&mut shared.ledger(), &rows, &mut verdict);
    compare_certificates(&shared.ledger(), &certificates, &mut verdict);
    let checked = output(&mut shared.fleet.command(&["keys", "check"])).await;
    match checked {
        Ok(said) => verdict.say("sealed records (`csrd keys check`)", said.lines().last().unwrap_or_default()),
        Err(error) => {
            verdict.say("sealed records (`csrd keys check`)", "**do not all open**");
            verdict.broken.push(format!("{error:#}"));
        }
    }
    let ledger = shared.ledger();
    verdict.none("answers and events that no fault explains", ledger.unexpected);
    verdict.broken.extend(ledger.named.iter().cloned());
    drop(ledger);
    let processes = processes(&shared.fleet, &mut verdict);
    let mut table = "| what | |\n|---|---|\n".to_owned();
    for (what, figure) in &verdict.lines {
        let _ = writeln!(table, "| {what} | {figure} |");
    }
    let _ = write!(table, "\n{processes}");
    Ok(Ended { table, broken: verdict.broken })
}

async fn custom_csrs(connection: &mut PgConnection) -> anyhow::Result<HashMap<String, Found>> {
    let query = "SELECT id, status, spki_sha256, csr_pem, concat_ws(' ', scope, key_type, attempts, starts, error, job_id) AS about FROM custom_csrs";
    let rows = sqlx::query(query).fetch_all(connection).await?;
    let found = |row: &sqlx::postgres::PgRow| {
        let found = Found {
            status: row.try_get("status")?,
            key: row.try_get("spki_sha256")?,
            csr: row.try_get("csr_pem")?,
            about: row.try_get("about")?,
        };
        anyhow::Ok((row.try_get("id")?, found))
    };
    rows.iter().map(found).collect()
}

/// Custom CSR and fingerprint of each certificate.
async fn certificates(connection: &mut PgConnection) -> anyhow::Result<HashMap<String, (String, String)>> {
    let rows = sqlx::query("SELECT id, custom_csr_id, fingerprint_sha256 FROM custom_certificates").fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
}

fn compare_csrs(ledger: &mut Ledger, rows: &HashMap<String, Found>, verdict: &mut Verdict) {
    let (mut lost, mut came_back, mut changed, mut failed, mut untold, mut kept) = (Vec::new(), 0, 0, 0, 0, 0);
    for (id, fate) in &ledger.csrs {
        match (fate, rows.get(id)) {
            (Fate::Deleted, None) => {}
            (Fate::Deleted, Some(_)) => came_back += 1,
            (_, None) => lost.push(format!("the custom CSR {id} is not in the database")),
            (fate, Some(row)) => {
                kept += 1;
                match (row.status.as_str(), fate) {
                    ("active", Fate::Active(key)) => changed += u64::from(row.key.as_deref() != Some(key.as_slice())),
                    ("active", _) => {}
                    ("failed", _) => failed += 1,
                    (status, _) => lost.push(format!("the custom CSR {id} is {status}: {}", row.about)),
                }
            }
        }
    }
    for (id, row) in rows {
        untold += u64::from(!ledger.csrs.contains_key(id));
        let Some(csr) = &row.csr else { continue };
        match PublicKey::of_csr(csr) {
            Ok(key) => {
                changed += u64::from(row.key.as_deref() != Some(key.spki_sha256.as_slice()));
                ledger.saw_key(id, key.spki_sha256);
            }
            Err(error) => verdict.broken.push(format!("the custom CSR {id}: {error:#}")),
        }
    }
    verdict.say("custom CSRs accepted", ledger.csrs.len());
    verdict.say("became active", ledger.became_active);
    verdict.none("became failed", ledger.became_failed.max(failed));
    verdict.say("deleted by their clients", ledger.deleted);
    verdict.say("in the database at the end", kept);
    verdict.none("lost (accepted and neither there nor decided)", u64::try_from(lost.len()).unwrap_or(u64::MAX));
    verdict.broken.extend(lost.into_iter().take(NAMED_MAX));
    verdict.none("there again after they were deleted", came_back);
    verdict.none("there without that anyone was told", untold);
    verdict.none("with another key than the client saw", changed);
    verdict.say("keys (SHA-256 of the SubjectPublicKeyInfo in every CSR that a client or the database had)", ledger.keys());
    verdict.none("keys twice", ledger.twice);
}

fn compare_certificates(ledger: &Ledger, rows: &HashMap<String, (String, String)>, verdict: &mut Verdict) {
    let is_there = |(id, stored): &(&String, &super::ledger::Stored)| {
        rows.get(*id).is_some_and(|(csr, fingerprint)| *csr == stored.custom_csr_id && *fingerprint == hex(&stored.fingerprint))
    };
    let there = ledger.certificates.iter().filter(is_there).count();
    let untold = rows.keys().filter(|id| !ledger.certificates.contains_key(*id)).count();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    verdict.say("certificates stored", ledger.uploaded);
    verdict.say("in the database at the end, as they were last renewed", there);
    verdict.none("certificates lost", count(ledger.certificates.len() - there));
    verdict.none("certificates without that anyone was told, or after they were deleted", count(untold));
}

/// A life of a process in sixths: in the first, caches fill.
struct Sixths<'a> {
    second: &'a [Look],
    last: &'a [Look],
}

impl<'a> Sixths<'a> {
    fn of(seen: &'a Seen) -> Option<Self> {
        let sixth = (seen.looks.len() / 6).max(1);
        Some(Self { second: seen.looks.get(sixth..2 * sixth)?, last: seen.looks.get(seen.looks.len() - sixth..)? })
    }

    /// The medians of both: single looks jump.
    fn medians(&self, figure: impl Fn(&Look) -> u64) -> (u64, u64) {
        let median = |looks: &[Look]| {
            let mut figures: Vec<_> = looks.iter().map(&figure).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        };
        (median(self.second), median(self.last))
    }
}

/// The processes' memory and descriptors. Those that are never restarted are judged.
fn processes(fleet: &Fleet, verdict: &mut Verdict) -> String {
    let mut text = "Memory and descriptors: the median of the second sixth of the longest life of each process beside that of its last sixth.\n\n\
        | process | starts | longest life | resident after the warm-up | at the end | peak | descriptors after the warm-up | at the end | |\n\
        |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (index, name, starts, seen) in fleet.seen() {
        let Some(sixths) = Sixths::of(&seen) else {
            verdict.broken.push(format!("{name} was not looked at"));
            continue;
        };
        let (before, after) = sixths.medians(|look| look.resident);
        let (open_before, open_after) = sixths.medians(|look| look.descriptors.unwrap_or_default());
        let peak = seen.looks.iter().map(|look| look.peak).max().unwrap_or_default();
        let is_flat = after <= (before + before / 10).max(before + MEMORY_SLACK) && open_after <= open_before + DESCRIPTOR_SLACK;
        let judged = match (STEADY.contains(&index), is_flat) {
            (false, _) => "context",
            (true, true) => "flat",
            (true, false) => "**grows**",
        };
        if STEADY.contains(&index) && !is_flat {
            verdict.broken.push(format!("{name} grows: {} to {}, {open_before} to {open_after} descriptors", mib(before), mib(after)));
        }
        let open = |count: u64| if count == 0 { "not readable".to_owned() } else { count.to_string() };
        let _ = writeln!(
            text,
            "| {name} | {starts} | {} | {} | {} | {} | {} | {} | {judged} |",
            humantime::format_duration(Duration::from_secs(seen.age.as_secs())),
            mib(before),
            mib(after),
            mib(peak),
            open(open_before),
            open(open_after)
        );
    }
    text
}

fn listed<K: std::fmt::Display>(counts: &std::collections::BTreeMap<K, u64>) -> String {
    counts.iter().map(|(what, count)| format!("{} × {what}", grouped_count(*count))).collect::<Vec<_>>().join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "no run is that long")]
fn grouped_count(count: u64) -> String {
    if count < 100 { count.to_string() } else { grouped(count as f64) }
}
