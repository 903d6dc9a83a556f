//! P-256, sustained and durable.

use std::time::Instant;

use crate::{
    bench::{Bench, DEFAULT_POOL},
    drive::{Expected, Load},
    peers::Cfssl,
    plot::{Bar, Kind},
    report::{Row, grouped},
    service::{Backend, WAIT},
};

const CONNECTIONS: usize = 64;

/// POST to active: clients that wait for each, and, for context, clients that go on posting.
pub async fn sustained(bench: &mut Bench) -> anyhow::Result<()> {
    let window = bench.secs(30);
    let (mut bars, mut rates) = (Vec::new(), Vec::new());
    for backend in Backend::BOTH {
        let installation = bench.install(backend, 16).await?;
        let process = bench.serve(&installation, DEFAULT_POOL, &[]).await?;
        let token = installation.token().await?;
        let requests = installation.posts(&token, "p256v1", WAIT);
        let mut load = Load { address: process.address, connections: CONNECTIONS, requests, expected: Expected::ACTIVE };
        let watched = installation.watched(&[&process]);
        let figures = load.run(bench.secs(5), window, &watched).await?;
        bench.report.detail(&format!("P-256, {CONNECTIONS} clients that wait, {}", backend.name()), &figures);
        bench.report.span(format!("P-256 POST to active, {CONNECTIONS}×, {}", backend.name()), &figures.latencies);
        bars.push(Bar { label: format!("csrd, {}", backend.name()), value: figures.rate(), kind: Kind::Csrd });
        rates.push((backend, figures.rate()));

        load = Load { requests: installation.posts(&token, "p256v1", &[]), expected: Expected::CREATED, ..load };
        let (before, began) = (watched.cpu()?, Instant::now());
        let mut figures = load.times(bench.count(20_000), &watched).await?;
        installation.until_none_is_pending().await?;
        (figures.elapsed, figures.cpu) = (began.elapsed(), watched.cpu()?.since(before));
        bench.report.detail(&format!("P-256, {} posted at once, until all are active, {}", figures.done, backend.name()), &figures);
        process.stop().await?;
        installation.remove().await?;
    }
    let beside = if let Some(cfssl) = Cfssl::start(&bench.dir).await? {
        let figures = cfssl.load("ecdsa", 256, CONNECTIONS).await?.run(bench.secs(2), window / 2, &cfssl.peer.watched).await?;
        bench.report.detail("P-256, cfssl newkey", &figures);
        bars.push(Bar { label: "cfssl newkey".to_owned(), value: figures.rate(), kind: Kind::Peer });
        format!("cfssl {}/s, neither durable nor authenticated", grouped(figures.rate()))
    } else {
        bench.report.note("cfssl is not installed, so csrd was not compared with it: apt-get install golang-cfssl");
        "not measured".to_owned()
    };
    for (backend, rate) in rates {
        let (target, wanted) = if backend == Backend::Sqlite { ("1,500/s", 1_500.0) } else { ("1,000/s", 1_000.0) };
        bench.report.row(Row {
            what: format!("P-256, sustained, POST to active, durable, {}", backend.name()),
            figure: format!("{}/s", grouped(rate)),
            beside: beside.clone(),
            ratio: format!("{:.0} % of the target", 100.0 * rate / wanted),
            target,
            reached: Some(rate >= wanted),
        });
    }
    bench.report.bars("P-256, POST to active, sustained", bars);
    Ok(())
}
