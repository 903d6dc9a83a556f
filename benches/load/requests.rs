//! GET of one custom CSR, another one on each connection.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::Context;

use crate::{
    bench::Bench,
    drive::{Expected, Figures, Load, Watched, body_of},
    numbers::grouped,
    peers::bare_route,
    plot::{Bar, Kind},
    report::Row,
    service::{Backend, Installation, WAIT},
};

const CONNECTIONS: usize = 16;

/// Compares it with a poem route that only sends the same bytes.
pub async fn get_one(bench: &mut Bench) -> anyhow::Result<()> {
    let mut bars = Vec::new();
    for backend in Backend::BOTH {
        let installation = bench.install(backend, 1).await?;
        let process = bench.serve(&installation, 0, &["--workers", "1"]).await?;
        let token = installation.token().await?;
        let (mut gets, mut last_id) = (Vec::new(), String::new());
        for _ in 0..CONNECTIONS {
            let created = body_of(process.address, &installation.posts(&token, "p256v1", WAIT)[0]).await?;
            let created: serde_json::Value = serde_json::from_slice(&created)?;
            let id = created.pointer("/result/id").and_then(serde_json::Value::as_str).context("no ID")?;
            gets.push(Installation::get(&token, &format!("bench-0/custom_csrs/{id}")));
            id.clone_into(&mut last_id);
        }
        let file = tempfile::NamedTempFile::new_in(&bench.dir)?;
        fs::write(file.path(), body_of(process.address, &gets[0]).await?)?;
        let peer = bare_route(file.path()).await?;
        let load = Load { address: process.address, connections: CONNECTIONS, requests: gets.into(), expected: Expected::OK };
        let watched = installation.watched(&[&process]);
        let ours = in_turn(bench, &load, &watched).await?;
        let limit = in_turn(bench, &Load { address: peer.address, ..load.clone() }, &peer.watched).await?;
        let ours_again = in_turn(bench, &load, &watched).await?;
        let limit_again = in_turn(bench, &Load { address: peer.address, ..load }, &peer.watched).await?;
        let (rate, limit) = (f64::midpoint(ours.rate(), ours_again.rate()), f64::midpoint(limit.rate(), limit_again.rate()));
        bench.report.detail(&format!("GET one, {}", backend.name()), &ours_again);
        bench.report.detail("a bare poem route, the same bytes", &limit_again);
        bench.report.row(Row {
            what: format!("GET one, with token, {}", backend.name()),
            figure: format!("{}/s", grouped(rate)),
            beside: format!("bare poem route {}/s", grouped(limit)),
            ratio: format!("{:.0} %", 100.0 * rate / limit),
            target: "half of it",
            reached: Some(rate >= 0.5 * limit),
        });
        if backend == Backend::Postgres {
            let limit = select_by_key(bench, &installation, &last_id).await?;
            bench.report.row(Row {
                what: "GET one, with token, PostgreSQL, beside the database alone".to_owned(),
                figure: format!("{}/s", grouped(rate)),
                beside: format!("pgbench, SELECT by key, prepared, {CONNECTIONS} clients: {}/s", grouped(limit)),
                ratio: format!("{:.0} %", 100.0 * rate / limit),
                target: "all of it",
                reached: Some(rate >= limit),
            });
        } else {
            bars.push(Bar { label: "a bare poem route".to_owned(), value: limit, kind: Kind::Limit });
        }
        bars.push(Bar { label: format!("csrd, {}", backend.name()), value: rate, kind: Kind::Csrd });
        process.stop().await?;
        installation.remove().await?;
    }
    bench.report.bars("GET one, with token", bars);
    Ok(())
}

/// How often per second the database alone returns this row by its key.
async fn select_by_key(bench: &Bench, installation: &Installation, id: &str) -> anyhow::Result<f64> {
    let (server, database) = installation.server()?;
    let script = tempfile::NamedTempFile::new_in(&bench.dir)?;
    fs::write(script.path(), format!("SELECT * FROM custom_csrs WHERE id = '{id}' AND scope = 'zones/bench-0';\n"))?;
    fs::set_permissions(script.path(), fs::Permissions::from_mode(0o644))?;
    Ok(server.pgbench(database, script.path(), CONNECTIONS, bench.secs(10)).await?.0)
}

async fn in_turn(bench: &Bench, load: &Load, watched: &Watched) -> anyhow::Result<Figures> {
    load.run(bench.secs(1), bench.secs(10), watched).await
}
