//! POSTs accepted a second on PostgreSQL, beside pgbench with the same statements.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use anyhow::{Context, ensure};

use crate::{
    bench::Bench,
    drive::{Expected, Figures, Load, Watched, body_of},
    numbers::grouped,
    plot::{Bar, Kind},
    postgres::Postgres,
    report::Row,
    service::Backend,
};

/// Clients, each with a zone of its own, on both sides; and connections to the database.
const CLIENTS: usize = 16;

/// An API process without workers, in turn with pgbench.
pub async fn accepted(bench: &mut Bench) -> anyhow::Result<()> {
    let installation = bench.install(Backend::Postgres, CLIENTS).await?;
    let connections = CLIENTS.to_string();
    let process = installation.serve(&["--workers", "0", "--pool-size", &connections]).await?;
    let token = installation.token().await?;
    let requests = installation.posts(&token, "p256v1", &[]);
    let load = Load { address: process.address, connections: CLIENTS, requests: Arc::clone(&requests), expected: Expected::CREATED };
    // Opens every connection, and lets the driver look up the types of the columns.
    load.times(bench.count(20_000), &Watched::default()).await?;
    let (server, database) = installation.server()?;
    let script = tempfile::NamedTempFile::new_in(&bench.dir)?;
    let statements = statements_of(server, process.address, &requests[0]).await?;
    println!("one accept, as pgbench runs it:\n{statements}");
    fs::write(script.path(), &statements)?;
    fs::set_permissions(script.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;

    let watched = installation.watched(&[&process]);
    let (mut ours, mut limits) = (Vec::<Figures>::new(), Vec::new());
    for _ in 0..2 {
        ours.push(load.run(bench.secs(2), bench.secs(10), &watched).await?);
        limits.push(pgbench(server, database, script.path(), bench.secs(10)).await?);
    }
    let rate = ours.iter().map(Figures::rate).sum::<f64>() / 2.0;
    let limit = limits.iter().sum::<f64>() / 2.0;
    bench.report.detail("POST accepted, PostgreSQL, no workers", &ours[1]);
    bench.report.span(format!("POST accepted, {CLIENTS}×, PostgreSQL"), &ours[1].latencies);
    bench.report.row(Row {
        what: "POST accepted per second, PostgreSQL".to_owned(),
        figure: format!("{}/s", grouped(rate)),
        beside: format!("pgbench, the same statements, a transaction each, without NOTIFY, {CLIENTS} clients too: {}/s", grouped(limit)),
        ratio: format!("{:.0} %", 100.0 * rate / limit),
        target: "120 % of it",
        reached: Some(rate >= 1.2 * limit),
    });
    bench.report.bars(
        "POST accepted, PostgreSQL",
        vec![
            Bar { label: "pgbench, the same statements".to_owned(), value: limit, kind: Kind::Limit },
            Bar { label: "csrd, no workers".to_owned(), value: rate, kind: Kind::Csrd },
        ],
    );
    process.stop().await?;
    installation.remove().await
}

async fn pgbench(server: &Postgres, database: &str, script: &std::path::Path, time: Duration) -> anyhow::Result<f64> {
    let count = "SELECT count(*) FROM custom_csrs";
    let before = server.number(database, count).await?;
    let (rate, done) = server.pgbench(database, script, CLIENTS, time).await?;
    ensure!(server.number(database, count).await? - before == done, "pgbench did not insert what it says");
    Ok(rate)
}

/// The statements of one accepting transaction, as the server logs them: what pgbench runs is what `csrd` runs, whatever that is.
/// The values are those of that request, but for the zone, which is the client's, and for IDs, which are fresh for each transaction.
async fn statements_of(server: &Postgres, address: std::net::SocketAddr, post: &[u8]) -> anyhow::Result<String> {
    let log = |on: bool| async move {
        server.sql("postgres", &format!("ALTER SYSTEM SET log_statement = '{}'", if on { "all" } else { "none" })).await?;
        server.sql("postgres", "SELECT pg_reload_conf()").await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        anyhow::Ok(())
    };
    log(true).await?;
    let before = fs::read_to_string(server.log_path())?.len();
    body_of(address, post).await?;
    log(false).await?;
    let text = fs::read_to_string(server.log_path())?;
    let session = sessions(&text[before..]).into_values().find(|entries| entries.iter().any(|e| e.contains("INSERT INTO custom_csrs")));
    let mut statements: Vec<String> = Vec::new();
    for entry in session.context("the server's log has no accepting transaction")? {
        if let Some(values) = entry.strip_prefix("DETAIL:  parameters: ") {
            let statement = statements.pop().context("parameters without a statement")?;
            statements.push(filled_in(&statement, &parameters(values)));
        } else if let Some(text) = entry.strip_prefix("LOG:  statement: ") {
            statements.push(text.to_owned());
        } else if let Some((_, text)) = entry.strip_prefix("LOG:  execute ").and_then(|rest| rest.split_once(": ")) {
            statements.push(text.to_owned());
        }
    }
    let insert = statements.iter().position(|text| text.contains("INSERT INTO custom_csrs")).context("no INSERT")?;
    let begin = statements[..insert].iter().rposition(|text| text.starts_with("BEGIN")).context("no BEGIN")?;
    let commit = insert + statements[insert..].iter().position(|text| text.starts_with("COMMIT")).context("no COMMIT")?;
    for foreign in ["pg_notify", "pg_catalog"] {
        ensure!(!statements[begin..commit].iter().any(|text| text.contains(foreign)), "{foreign} within the accepting transaction");
    }
    let lines: Vec<_> = statements[begin..=commit].iter().map(|text| text.trim_end_matches([';', ' ', '\n'])).collect();
    Ok(lines.join(";\n") + ";\n")
}

/// The log's entries by process: each begins with a process ID; lines that begin with a tab go on with it.
fn sessions(log: &str) -> BTreeMap<u32, Vec<String>> {
    let (mut sessions, mut last) = (BTreeMap::<u32, Vec<String>>::new(), None);
    for line in log.lines() {
        let begun = line.split_once('|').and_then(|(pid, rest)| Some((pid.parse().ok()?, rest)));
        if let Some((pid, rest)) = begun {
            sessions.entry(pid).or_default().push(rest.to_owned());
            last = Some(pid);
        } else if let Some(entry) = last.and_then(|pid| sessions.get_mut(&pid)?.last_mut()) {
            entry.push('\n');
            entry.push_str(line.trim_start_matches('\t'));
        }
    }
    sessions
}

/// `$1 = 'text', $2 = NULL, …` as SQL literals.
fn parameters(mut text: &str) -> Vec<String> {
    let mut values = Vec::new();
    while let Some((_, rest)) = text.split_once(" = ") {
        let mut end = if rest.starts_with('\'') { 1 } else { rest.find(',').unwrap_or(rest.len()) };
        while rest.starts_with('\'') {
            end += rest[end..].find('\'').map_or(rest.len() - end, |at| at + 1);
            if !rest[end..].starts_with('\'') {
                break;
            }
            end += 1;
        }
        values.push(rest[..end].to_owned());
        text = &rest[end..];
    }
    values
}

fn filled_in(statement: &str, values: &[String]) -> String {
    // From the last on: $1 is the beginning of $10.
    values
        .iter()
        .enumerate()
        .rev()
        .fold(statement.to_owned(), |text, (index, value)| text.replace(&format!("${}", index + 1), &fresh(value)))
}

/// A literal, or what stands for it and for the words in it: 36 characters for a UUID, 26 for a ULID, alike within one transaction only, and
/// in order of time; the client's own zone.
fn fresh(literal: &str) -> String {
    if !literal.starts_with('\'') {
        return literal.to_owned();
    }
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let (mut text, mut rest) = (String::new(), literal);
    while let Some(start) = rest.find(is_of_word) {
        let end = rest[start..].find(|c| !is_of_word(c)).map_or(rest.len(), |length| start + length);
        text.push_str(&rest[..start]);
        text.push_str(&fresh_word(&rest[start..end]));
        rest = &rest[end..];
    }
    // A colon before a digit or a letter is a variable of pgbench.
    format!("({})", (text + rest).replace("\":", "\": "))
}

fn fresh_word(word: &str) -> String {
    let id = |filler: u32| format!("' || to_char(now(), 'YYYYMMDDHH24MISSUS') || lpad(CAST(:client_id AS TEXT), {filler}, '0') || '");
    if word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12]) {
        id(16)
    } else if word.len() == 26 && word.starts_with('0') && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
        id(6)
    } else if word == "bench-0" {
        "bench-' || CAST(:client_id AS TEXT) || '".to_owned()
    } else {
        word.to_owned()
    }
}
