//! RSA-2048: sustained, one at a time, in a burst.

use std::{
    mem,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    bench::{Bench, Build, DEFAULT_POOL},
    drive::{Expected, Figures, Latencies, Load, body_of, paced},
    http::Connection,
    numbers::{grouped, ms},
    peers::{Cfssl, KeyLoop, key_loop},
    plot::{Bar, Kind},
    report::{Row, cores},
    service::{Backend, Installation, Process, WAIT},
};

const CONNECTIONS: usize = 16;
/// How often the loop and each database take turns.
const ROUNDS: u32 = 6;

/// All cores busy for long, without a pool: a pool makes bursts fast, not long runs.
pub async fn sustained(bench: &mut Bench) -> anyhow::Result<()> {
    let window = bench.secs(90);
    let (mut bars, mut best) = (Vec::new(), 0.0);
    let builds = bench.builds().await?;
    for build in &builds {
        let (limit, rate) = beside_the_loop(bench, build, window, &mut bars).await?;
        best = f64::max(best, rate);
        bench.report.row(Row {
            what: format!("RSA-2048 key generation, {}", build.name),
            figure: format!("{:.1} ms mean processor time", limit.mean_ms),
            beside: if build.name == "OpenSSL" { "41 ms" } else { "62 ms" }.to_owned() + " known",
            ratio: "–".to_owned(),
            target: "both shown",
            reached: None,
        });
    }
    let Some(cfssl) = Cfssl::start(&bench.dir).await? else {
        bench.report.note("cfssl is not installed, so csrd was not compared with it: apt-get install golang-cfssl");
        bench.report.bars("RSA-2048, POST to active, sustained", bars);
        return Ok(());
    };
    let load = cfssl.load("rsa", 2048, CONNECTIONS).await?;
    let figures = load.run(bench.secs(10), window / 2, &cfssl.peer.watched).await?;
    bench.report.detail("RSA-2048, cfssl newkey", &figures);
    bench.report.versions.push(format!("cfssl {}", cfssl.version));
    bench.report.row(Row {
        what: "RSA-2048, sustained, POST to active, beside cfssl newkey".to_owned(),
        figure: format!("{}/s", grouped(best)),
        beside: format!("cfssl {}/s", grouped(figures.rate())),
        ratio: format!("{:.2} times", best / figures.rate()),
        target: "2.5 times",
        reached: Some(best >= 2.5 * figures.rate()),
    });
    bars.push(Bar { label: "cfssl newkey".to_owned(), value: figures.rate(), kind: Kind::Peer });
    bench.report.bars("RSA-2048, POST to active, sustained", bars);
    Ok(())
}

/// In turns: a machine that others use too is faster in one minute than in the next, by more than what csrd costs.
async fn beside_the_loop(bench: &mut Bench, build: &Build, window: Duration, bars: &mut Vec<Bar>) -> anyhow::Result<(KeyLoop, f64)> {
    let mut services = Vec::new();
    for backend in Backend::BOTH {
        let installation = bench.install_build(build, backend, 1).await?;
        let process = bench.serve(&installation, 0, &[]).await?;
        let requests = installation.posts(&installation.token().await?, "rsa2048", WAIT);
        let load = Load { address: process.address, connections: CONNECTIONS, requests, expected: Expected::ACTIVE };
        services.push((backend, installation, process, load, Figures::default()));
    }
    let mut loops = Vec::new();
    for _ in 0..ROUNDS {
        loops.push(key_loop(&build.bench, window / ROUNDS).await?);
        for (_, installation, process, load, figures) in &mut services {
            let watched = installation.watched(&[process]);
            *figures = mem::take(figures).and(load.run(bench.secs(3), window / ROUNDS, &watched).await?);
        }
    }
    let (limit, mut rates) = (KeyLoop::mean(&loops), Vec::new());
    for (backend, installation, process, _, figures) in services {
        bench.report.detail(&format!("RSA-2048 by {}, {}", build.name, backend.name()), &figures);
        rates.push((backend, figures.rate()));
        process.stop().await?;
        installation.remove().await?;
    }
    bars.push(Bar { label: format!("{} in a loop", build.name), value: limit.rate, kind: Kind::Limit });
    for (backend, rate) in &rates {
        let (wanted, target) = if *backend == Backend::Sqlite { (0.95, "95 %") } else { (0.92, "92 %") };
        bench.report.row(Row {
            what: format!("RSA-2048 by {}, sustained, POST to active, {}", build.name, backend.name()),
            figure: format!("{}/s", grouped(*rate)),
            beside: format!("library in a loop on {} cores {}/s", cores(), grouped(limit.rate)),
            ratio: format!("{:.0} %", 100.0 * rate / limit.rate),
            target,
            reached: Some(*rate >= wanted * limit.rate),
        });
        bars.push(Bar { label: format!("csrd, {}, {}", build.name, backend.name()), value: *rate, kind: Kind::Csrd });
    }
    Ok((limit, rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)))
}

/// One POST at a time, now and then, so that the pool stays filled; and without a pool, one after the other.
pub async fn one_at_a_time(bench: &mut Bench) -> anyhow::Result<()> {
    let build = bench.rsa_build().await?;
    for backend in Backend::BOTH {
        let installation = bench.install_build(&build, backend, 1).await?;
        let process = bench.serve(&installation, DEFAULT_POOL, &[]).await?;
        let token = installation.token().await?;
        let (pause, count) = (Duration::from_millis(250), bench.count(120));
        let post = &installation.posts(&token, "rsa2048", WAIT)[0];
        let latencies = paced(process.address, post, Expected::ACTIVE, pause, count).await?;
        let what = format!("RSA-2048, one POST at a time, Prefer: wait, {}, filled pool", backend.name());
        let row = latency_row(what, &latencies);
        bench.report.span(format!("RSA POST to active, {}, pool", backend.name()), &latencies);
        bench.report.row(row);
        installation.until_pool_holds(DEFAULT_POOL.into()).await?;
        let polled = polled(&installation, &process, &token, pause, bench.count(60)).await?;
        let (p50, p99) = polled.p50_p99();
        bench.report.row(Row {
            what: format!("the same, polled every 5 ms, {}", backend.name()),
            figure: format!("p50 {}, p99 {}", ms(p50), ms(p99)),
            beside: "–".to_owned(),
            ratio: "–".to_owned(),
            target: "–",
            reached: None,
        });
        process.stop().await?;
        let process = bench.serve(&installation, 0, &[]).await?;
        let requests = installation.posts(&token, "rsa2048", WAIT);
        let load = Load { address: process.address, connections: 1, requests, expected: Expected::ACTIVE };
        let figures = load.times(bench.count(120), &installation.watched(&[&process])).await?;
        let (p50, p99) = figures.latencies.p50_p99();
        bench.report.span(format!("RSA POST to active, {}, no pool", backend.name()), &figures.latencies);
        bench.report.row(Row {
            what: format!("the same, Prefer: wait, one after the other, {}, without a pool", backend.name()),
            figure: format!("p50 {}, p99 {}", ms(p50), ms(p99)),
            beside: "–".to_owned(),
            ratio: "–".to_owned(),
            target: "–",
            reached: None,
        });
        process.stop().await?;
        installation.remove().await?;
    }
    Ok(())
}

fn latency_row(what: String, latencies: &Latencies) -> Row {
    let (p50, p99) = latencies.p50_p99();
    Row {
        what,
        figure: format!("p50 {}, p99 {}", ms(p50), ms(p99)),
        beside: "–".to_owned(),
        ratio: "–".to_owned(),
        target: "p50 under 20 ms, p99 under 100 ms",
        reached: Some(p50 < Duration::from_millis(20) && p99 < Duration::from_millis(100)),
    }
}

/// Polls, as a client does that does not know `Prefer`.
async fn polled(installation: &Installation, process: &Process, token: &str, pause: Duration, count: usize) -> anyhow::Result<Latencies> {
    let post = &installation.posts(token, "rsa2048", &[])[0];
    let mut connection = Connection::open(process.address).await?;
    let mut latencies = Vec::new();
    for _ in 0..count {
        tokio::time::sleep(pause).await;
        let asked = Instant::now();
        let created: serde_json::Value = serde_json::from_slice(&body_of(process.address, post).await?)?;
        let id = created.pointer("/result/id").and_then(serde_json::Value::as_str).context("no ID")?;
        let get = Installation::get(token, &format!("bench-0/custom_csrs/{id}"));
        while !connection.ask(&get).await?.contains("\"status\":\"active\"") {
            if asked.elapsed() > Duration::from_mins(1) {
                bail!("a custom CSR does not become active");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        latencies.push(asked.elapsed());
    }
    Ok(Latencies::new(latencies))
}

/// 256 at once on a filled pool, each on a connection of its own, until the last is active.
pub async fn burst(bench: &mut Bench) -> anyhow::Result<()> {
    const BURST: u32 = 256;
    let build = bench.rsa_build().await?;
    for backend in Backend::BOTH {
        let installation = bench.install_build(&build, backend, 1).await?;
        let process = bench.serve(&installation, BURST, &[]).await?;
        let token = installation.token().await?;
        let requests = installation.posts(&token, "rsa2048", WAIT);
        let load = Load { address: process.address, connections: BURST as usize, requests, expected: Expected::ACTIVE };
        let mut bursts: Vec<Figures> = Vec::new();
        for _ in 0..bench.count(30).min(5) {
            installation.until_pool_holds(BURST.into()).await?;
            bursts.push(load.times(BURST as usize, &installation.watched(&[&process])).await?);
        }
        bursts.sort_by_key(|burst| burst.elapsed);
        let (median, worst) = (&bursts[bursts.len() / 2], &bursts[bursts.len() - 1]);
        bench.report.detail(&format!("burst of 256 RSA-2048, {}, filled pool", backend.name()), median);
        bench.report.row(Row {
            what: format!("burst of 256 RSA POSTs, {}, filled pool", backend.name()),
            figure: format!("all active after {} (median of {}), {} (worst)", ms(median.elapsed), bursts.len(), ms(worst.elapsed)),
            beside: "–".to_owned(),
            ratio: "–".to_owned(),
            target: "within 1 s",
            reached: Some(worst.elapsed <= Duration::from_secs(1) && bursts.iter().all(|burst| burst.failures == 0)),
        });
        process.stop().await?;
        installation.remove().await?;
    }
    Ok(())
}
