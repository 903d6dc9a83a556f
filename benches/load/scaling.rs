//! What one custom CSR costs, and what follows from it for machines and databases: the tables of SCALING.md.

use std::{fmt::Write as _, path::Path, time::Duration};

use crate::{
    bench::Bench,
    drive::{Expected, Load, Watched},
    numbers::grouped,
    report::{cores, replace_block},
    service::{Backend, Installation, WAIT},
};

/// Processor time of one custom CSR from POST to active, in microseconds, and what stays of it.
#[derive(Clone, Copy, Default)]
struct Cost {
    api: f64,
    worker: f64,
    database: f64,
    /// Bytes in the table with its indexes, in the queue until it is purged, and in the write-ahead log.
    row: f64,
    job: f64,
    wal: f64,
    connections: i64,
}

/// Measures on PostgreSQL with an API process and a worker process, and on SQLite with the one that is both.
pub async fn cost(bench: &mut Bench, out: Option<&Path>) -> anyhow::Result<()> {
    let (p256_count, rsa_count) = (bench.count(20_000), bench.count(400));
    let rsa_build = bench.rsa_build().await?;
    let p256 = on_postgres(bench, &bench.install(Backend::Postgres, 16).await?, "p256v1", p256_count).await?;
    let rsa = on_postgres(bench, &bench.install_build(&rsa_build, Backend::Postgres, 16).await?, "rsa2048", rsa_count).await?;
    let p256_file = on_sqlite(bench, &bench.install(Backend::Sqlite, 16).await?, "p256v1", p256_count).await?;
    let rsa_file = on_sqlite(bench, &bench.install_build(&rsa_build, Backend::Sqlite, 16).await?, "rsa2048", rsa_count).await?;
    let text =
        tables(&[("P-256, PostgreSQL", p256), ("RSA-2048, PostgreSQL", rsa), ("P-256, SQLite", p256_file), ("RSA-2048, SQLite", rsa_file)])
            + &capacity(p256, rsa, p256_file, rsa_file);
    println!("{text}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("SCALING.md");
    if let Some(out) = out {
        if !out.join("SCALING.md").exists() {
            std::fs::create_dir_all(out)?;
            std::fs::copy(&file, out.join("SCALING.md"))?;
        }
        replace_block(&out.join("SCALING.md"), "measured", &text)?;
    }
    Ok(())
}

async fn on_postgres(bench: &Bench, installation: &Installation, key_type: &str, count: usize) -> anyhow::Result<Cost> {
    installation.init_keys().await?;
    let api = bench.serve(installation, 0, &["--workers", "0"]).await?;
    let worker = installation.work(&["--key-pool-size", "0"]).await?;
    let (server, name) = installation.server()?;
    let token = installation.token().await?;
    let requests = installation.posts(&token, key_type, WAIT);
    let load = Load { address: api.address, connections: 16, requests, expected: Expected::ACTIVE };
    // Connections opened, statements prepared.
    load.times(64, &Watched::default()).await?;
    let wal = "SELECT CAST(pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') AS BIGINT)";
    let size = "SELECT pg_total_relation_size('custom_csrs')";
    let jobs = "SELECT pg_total_relation_size('apalis.jobs')";
    let (wal_before, size_before, jobs_before) =
        (server.number(name, wal).await?, server.number(name, size).await?, server.number(name, jobs).await?);
    let (both, before) =
        (Watched { processes: vec![worker.pid], server: Some(server.pid()) }, Watched { processes: vec![api.pid], server: None });
    let (worker_before, api_before) = (both.cpu()?, before.cpu()?);
    let figures = load.times(count, &installation.watched(&[&api, &worker])).await?;
    anyhow::ensure!(figures.failures == 0, "{} custom CSRs did not become active", figures.failures);
    let (worker_cpu, api_cpu) = (both.cpu()?.since(worker_before), before.cpu()?.since(api_before));
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'csrd'";
    let cost = Cost {
        api: figures.micros_each(api_cpu.processes),
        worker: figures.micros_each(worker_cpu.processes),
        database: figures.micros_each(worker_cpu.server),
        row: each(server.number(name, size).await? - size_before, count),
        job: each(server.number(name, jobs).await? - jobs_before, count),
        wal: each(server.number(name, wal).await? - wal_before, count),
        connections: server.number(name, connections).await?,
    };
    worker.stop().await?;
    api.stop().await?;
    Ok(cost)
}

async fn on_sqlite(bench: &Bench, installation: &Installation, key_type: &str, count: usize) -> anyhow::Result<Cost> {
    let process = bench.serve(installation, 0, &[]).await?;
    let token = installation.token().await?;
    let requests = installation.posts(&token, key_type, WAIT);
    let load = Load { address: process.address, connections: 16, requests, expected: Expected::ACTIVE };
    load.times(64, &Watched::default()).await?;
    let size = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%custom_csrs%'";
    let jobs = "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = 'Jobs')";
    let (size_before, jobs_before) = (installation.number(size).await?, installation.number(jobs).await?);
    let figures = load.times(count, &installation.watched(&[&process])).await?;
    anyhow::ensure!(figures.failures == 0, "{} custom CSRs did not become active", figures.failures);
    let cost = Cost {
        api: figures.micros_each(figures.cpu.processes),
        row: each(installation.number(size).await? - size_before, count),
        job: each(installation.number(jobs).await? - jobs_before, count),
        ..Cost::default()
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    process.stop().await?;
    Ok(cost)
}

#[expect(clippy::cast_precision_loss, reason = "of no importance here")]
fn each(bytes: i64, count: usize) -> f64 {
    bytes.max(0) as f64 / count as f64
}

fn tables(costs: &[(&str, Cost)]) -> String {
    let mut text = "Processor time of one custom CSR, POST to active, in µs (on SQLite one process does it all), and what it leaves in bytes:\n\n\
        | | API | worker | PostgreSQL | row and indexes | job, until purged | write-ahead log | connections of one API and one worker process |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (name, cost) in costs {
        let cell = |value: f64| if value == 0.0 { "–".to_owned() } else { grouped(value) };
        let Cost { api, worker, database, row, job, wal, connections } = *cost;
        let connections = if connections == 0 { "–".to_owned() } else { connections.to_string() };
        let cells = [api, worker, database, row, job, wal].map(cell).join(" | ");
        let _ = writeln!(text, "| {name} | {cells} | {connections} |");
    }
    text
}

/// From processor time alone: all cores busy, nothing else in the way. The load generator's share is not in it.
#[expect(clippy::cast_precision_loss, reason = "few cores")]
fn capacity(p256: Cost, rsa: Cost, p256_file: Cost, rsa_file: Cost) -> String {
    let cores = cores() as f64;
    let rate = |cores: f64, micros: f64| if micros > 0.0 { cores * 1e6 / micros } else { 0.0 };
    let all = |cost: Cost| cost.api + cost.worker + cost.database;
    let ten = |cost: Cost| rate(9.0 * cores, cost.api + cost.worker).min(rate(cores, cost.database));
    let mut text = format!(
        "\nCustom CSRs a second by calculation from these figures, each machine with {cores} cores:\n\n\
        | | P-256 | RSA-2048, without a pool |\n|---|---|---|\n"
    );
    let mut line = |name: &str, p256: f64, rsa: f64| {
        let _ = writeln!(text, "| {name} | {} | {} |", grouped(p256), grouped(rsa));
    };
    line("one machine, SQLite", rate(cores, all(p256_file)), rate(cores, all(rsa_file)));
    line("one machine, PostgreSQL on it too", rate(cores, all(p256)), rate(cores, all(rsa)));
    line("ten machines: one PostgreSQL, nine API and worker", ten(p256), ten(rsa));
    for server in [2.0, 8.0, 32.0] {
        line(&format!("PostgreSQL on {server} cores, as many others as it takes"), rate(server, p256.database), rate(server, rsa.database));
    }
    let machines = |cost: Cost, server: f64| (rate(server, cost.database) * (cost.api + cost.worker) / 1e6 / cores).ceil();
    let _ = writeln!(
        text,
        "\nA PostgreSQL on 8 cores is busy with {} machines that make P-256 keys, or {} that make RSA-2048 keys. At 1,000 P-256 a second it writes {} MiB of write-ahead log a second and \
         {} GiB of rows a day; the queue holds {} MiB after the hour for which finished jobs are kept.",
        grouped(machines(p256, 8.0)),
        grouped(machines(rsa, 8.0)),
        grouped(p256.wal * 1e3 / 1024.0 / 1024.0),
        grouped(p256.row * 1e3 * 86_400.0 / 1024.0_f64.powi(3)),
        grouped(p256.job * 1e3 * 3_600.0 / 1024.0_f64.powi(2)),
    );
    text
}
