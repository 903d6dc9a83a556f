//! P-256, sustained and durable.

use std::time::Instant;

use crate::{
    bench::{Bench, DEFAULT_POOL},
    drive::{Expected, Load},
    numbers::grouped,
    peers::Cfssl,
    plot::{Bar, Kind},
    report::Row,
    service::{Backend, WAIT},
};

const CONNECTIONS: usize = 64;

/// Databases, with the number of zones, and what part of cfssl's rate is to be reached.
const CASES: [(Backend, usize, f64, &str); 3] =
    [(Backend::Sqlite, 16, 0.18, "0.18"), (Backend::Postgres, 16, 0.15, "0.15"), (Backend::Postgres, 1, 0.15, "0.15")];

fn name(backend: Backend, zones: usize) -> String {
    format!("{}{}", backend.name(), if zones == 1 { ", all in one zone" } else { "" })
}

/// POST to active: clients that wait for each, and, for context, clients that go on posting.
pub async fn sustained(bench: &mut Bench) -> anyhow::Result<()> {
    let window = bench.secs(30);
    let (mut bars, mut rates) = (Vec::new(), Vec::new());
    for (backend, zones, ..) in CASES {
        let installation = bench.install(backend, zones).await?;
        let name = name(backend, zones);
        let process = bench.serve(&installation, DEFAULT_POOL, &[]).await?;
        let token = installation.token().await?;
        let requests = installation.posts(&token, "p256v1", WAIT);
        let mut load = Load { address: process.address, connections: CONNECTIONS, requests, expected: Expected::ACTIVE };
        let watched = installation.watched(&[&process]);
        let figures = load.run(bench.secs(5), window, &watched).await?;
        bench.report.detail(&format!("P-256, {CONNECTIONS} clients that wait, {name}"), &figures);
        bench.report.span(format!("P-256 POST to active, {CONNECTIONS}×, {name}"), &figures.latencies);
        bars.push(Bar { label: format!("csrd, {name}"), value: figures.rate(), kind: Kind::Csrd });
        rates.push(figures.rate());

        load = Load { requests: installation.posts(&token, "p256v1", &[]), expected: Expected::CREATED, ..load };
        let (before, began) = (watched.cpu()?, Instant::now());
        let mut figures = load.times(bench.count(20_000), &watched).await?;
        installation.until_none_is_pending().await?;
        (figures.elapsed, figures.cpu) = (began.elapsed(), watched.cpu()?.since(before));
        bench.report.detail(&format!("P-256, {} posted at once, until all are active, {name}", figures.done), &figures);
        process.stop().await?;
        installation.remove().await?;
    }
    let limit = if let Some(cfssl) = Cfssl::start(&bench.dir).await? {
        let figures = cfssl.load("ecdsa", 256, CONNECTIONS).await?.run(bench.secs(2), window / 2, &cfssl.peer.watched).await?;
        bench.report.detail("P-256, cfssl newkey", &figures);
        bars.push(Bar { label: "cfssl newkey".to_owned(), value: figures.rate(), kind: Kind::Peer });
        Some(figures.rate())
    } else {
        bench.report.note("cfssl is not installed, so csrd was not compared with it: apt-get install golang-cfssl");
        None
    };
    for ((backend, zones, wanted, target), rate) in CASES.into_iter().zip(rates) {
        bench.report.row(Row {
            what: format!("P-256, sustained, POST to active, durable, {}", name(backend, zones)),
            figure: format!("{}/s", grouped(rate)),
            beside: limit
                .map_or("not measured".to_owned(), |limit| format!("cfssl {}/s, neither durable nor authenticated", grouped(limit))),
            ratio: limit.map_or("–".to_owned(), |limit| format!("{:.2}", rate / limit)),
            target,
            reached: limit.map(|limit| rate >= wanted * limit),
        });
    }
    bench.report.bars("P-256, POST to active, sustained", bars);
    Ok(())
}
