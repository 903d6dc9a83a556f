//! Memory: idle, after many creates, and over a long time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    bench::{Bench, DEFAULT_POOL},
    drive::{Expected, Load, body_of},
    http::{Connection, request},
    numbers::mib,
    report::Row,
    service::{Backend, Installation, Process, WAIT},
    usage,
};

const MIB: u64 = 1024 * 1024;

/// Idle, and after 100,000 creates of P-256, all of them active.
pub async fn creates(bench: &mut Bench) -> anyhow::Result<()> {
    let creates = bench.count(100_000);
    for backend in Backend::BOTH {
        let installation = bench.install(backend, 16).await?;
        let process = bench.serve(&installation, DEFAULT_POOL, &[]).await?;
        let token = installation.token().await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (idle, _) = usage::memory(process.pid)?;
        let requests = installation.posts(&token, "p256v1", WAIT);
        let load = Load { address: process.address, connections: 64, requests, expected: Expected::ACTIVE };
        let figures = load.times(creates, &installation.watched(&[&process])).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (after, peak) = usage::memory(process.pid)?;
        bench.report.detail(&format!("{creates} creates of P-256, {}", backend.name()), &figures);
        bench.report.row(memory_row(
            format!("memory, idle, {}", backend.name()),
            idle,
            "default settings, pool filled".to_owned(),
            60,
            "under 60 MiB",
        ));
        let what = format!("memory after {creates} creates (P-256, all active), {}", backend.name());
        bench.report.row(memory_row(what, after, format!("peak {}", mib(peak)), 150, "under 150 MiB"));
        process.stop().await?;
        installation.remove().await?;
    }
    Ok(())
}

fn memory_row(what: String, bytes: u64, beside: String, bound: u64, target: &'static str) -> Row {
    Row { what, figure: mib(bytes), beside, ratio: "–".to_owned(), target, reached: Some(bytes < bound * MIB) }
}

/// A service under load, with how often its clients went round and what memory it took.
struct Soaked {
    backend: Backend,
    installation: Installation,
    process: Process,
    cycles: Arc<AtomicU64>,
    /// Rounds that got an unexpected answer and were started again.
    broken: Arc<AtomicU64>,
    resident: Vec<u64>,
}

/// Looks at the memory, evenly spread over the time.
const STEPS: u32 = 60;

/// Clients that create, read and delete without end, on both databases at once: sixteen of P-256 and one of RSA-2048 each. Memory and work
/// done, sixty times; what to keep of it.
pub async fn soak(bench: &mut Bench, time: Duration) -> anyhow::Result<String> {
    let mut services = Vec::new();
    for backend in Backend::BOTH {
        let installation = bench.install(backend, 16).await?;
        let process = bench.serve(&installation, DEFAULT_POOL, &[]).await?;
        services.push(Soaked { backend, installation, process, cycles: Arc::default(), broken: Arc::default(), resident: Vec::new() });
    }
    let (mut clients, begin) = (JoinSet::new(), Instant::now());
    for Soaked { installation, process, cycles, broken, .. } in &services {
        let token = installation.token().await?;
        let mut posts = installation.posts(&token, "p256v1", WAIT).to_vec();
        posts.extend(installation.posts(&token, "rsa2048", WAIT).first().cloned());
        for post in posts {
            let (token, address, cycles, broken) = (token.clone(), process.address, Arc::clone(cycles), Arc::clone(broken));
            clients.spawn(async move {
                while begin.elapsed() < time {
                    match cycle(address, &post, &token).await {
                        Ok(()) => cycles.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            println!("a round is begun anew: {error:#}");
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            broken.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
    }
    let mut lines = vec!["| time | database | resident | peak | cycles of POST, GET, DELETE so far |\n|---|---|---|---|---|".to_owned()];
    println!("{}", lines[0]);
    for step in 0..=STEPS {
        let passed = time / STEPS * step;
        tokio::time::sleep_until(begin + passed).await;
        for Soaked { backend, process, cycles, resident, .. } in &mut services {
            let (now, peak) = usage::memory(process.pid)?;
            resident.push(now);
            let done = cycles.load(Ordering::Relaxed);
            lines.push(format!("| {} s | {} | {} | {} | {done} |", passed.as_secs(), backend.name(), mib(now), mib(peak)));
            println!("{}", lines[lines.len() - 1]);
        }
    }
    clients.join_all().await;
    for Soaked { backend, installation, process, cycles, broken, resident } in services {
        let rounds = (cycles.load(Ordering::Relaxed), broken.load(Ordering::Relaxed));
        bench.report.row(flat_row(time, backend, &resident, rounds));
        process.stop().await?;
        installation.remove().await?;
    }
    Ok(lines.join("\n"))
}

/// The last sixth beside the second one: in the first, caches fill.
#[expect(clippy::cast_precision_loss, reason = "no memory is that large")]
fn flat_row(time: Duration, backend: Backend, resident: &[u64], (done, broken): (u64, u64)) -> Row {
    let sixth = resident.len() / 6;
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
    let (early, late) = (most(&resident[sixth..2 * sixth]), most(&resident[resident.len() - sixth..]));
    Row {
        what: format!("memory over {} of load, {}", humantime::format_duration(time), backend.name()),
        figure: format!("{} at most in the last sixth", mib(late)),
        beside: format!("{} in the second; {done} rounds of POST, GET, DELETE, {broken} broken off", mib(early)),
        ratio: format!("{:.2} times", late as f64 / early.max(1) as f64),
        target: "flat (within 10 %), under 150 MiB",
        reached: Some(late * 10 <= early * 11 && late < 150 * MIB),
    }
}

async fn cycle(address: std::net::SocketAddr, post: &[u8], token: &str) -> anyhow::Result<()> {
    let created: serde_json::Value = serde_json::from_slice(&body_of(address, post).await?)?;
    let field = |name: &str| created.pointer(name).and_then(serde_json::Value::as_str).with_context(|| format!("no {name}: {created}"));
    let path = format!("/api/v4/zones/{}/custom_csrs/{}", field("/result/zone_id")?, field("/result/id")?);
    let authorization = format!("Bearer {token}");
    let mut connection = Connection::open(address).await?;
    for method in ["GET", "DELETE"] {
        let answer = connection.ask(&request(method, &path, &[("Authorization", &authorization)], "")).await?;
        anyhow::ensure!(answer.status == 200, "{method} is answered with {}", answer.status);
    }
    Ok(())
}
