//! How long a client waits while every worker makes RSA keys.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::{
    bench::Bench,
    drive::{Expected, Latencies, Load, Watched, body_of, paced},
    numbers::ms,
    report::Row,
    service::{Backend, Installation, Process, WAIT},
};

const INTERVAL: Duration = Duration::from_millis(10);

/// How often to measure with busy workers, so that an occasional stall shows.
const RUNS: usize = 5;

/// GET and POST, a hundred of each a second, idle and then with more RSA keys to make than there is time for; the worst of several runs.
pub async fn while_generating(bench: &mut Bench) -> anyhow::Result<()> {
    let build = bench.rsa_build().await?;
    let count = bench.count(2_000);
    // More than these workers can make meanwhile. The end checks that.
    let backlog = RUNS * (count + 200 * crate::report::cores());
    for backend in Backend::BOTH {
        let installation = bench.install_build(&build, backend, 1).await?;
        let process = bench.serve(&installation, 0, &[]).await?;
        let token = installation.token().await?;
        let created = body_of(process.address, &installation.posts(&token, "p256v1", WAIT)[0]).await?;
        let created: serde_json::Value = serde_json::from_slice(&created)?;
        let id = created.pointer("/result/id").and_then(serde_json::Value::as_str).context("no ID")?;
        let get = Installation::get(&token, &format!("bench-0/custom_csrs/{id}"));
        let post = &installation.posts(&token, "p256v1", &[])[0];
        let (idle_get, idle_post) = both(&process, &get, post, count).await?;

        let requests = installation.posts(&token, "rsa2048", &[]);
        let load = Load { address: process.address, connections: 8, requests, expected: Expected::CREATED };
        let filled = load.times(backlog, &Watched::default()).await?;
        ensure!(filled.failures == 0, "the backlog was refused");
        let (mut busy_gets, mut busy_posts) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let (busy_get, busy_post) = both(&process, &get, post, count).await?;
            busy_gets.push(busy_get);
            busy_posts.push(busy_post);
        }
        let left = installation.number("SELECT count(*) FROM custom_csrs WHERE status = 'pending' AND key_type = 'rsa2048'").await?;
        ensure!(left > 0, "the workers were idle before the end");
        for (name, idle, runs) in [("GET", idle_get, busy_gets), ("POST", idle_post, busy_posts)] {
            let (idle_p50, idle_p99) = idle.p50_p99();
            let busy = runs.into_iter().max_by_key(|run| run.p50_p99().1).unwrap_or_default();
            let (p50, p99) = busy.p50_p99();
            bench.report.row(Row {
                what: format!("{name} while every worker generates RSA keys, {}", backend.name()),
                figure: format!("p50 {}, p99 {} in the worst of {RUNS} runs", ms(p50), ms(p99)),
                beside: format!("idle: p50 {}, p99 {}", ms(idle_p50), ms(idle_p99)),
                ratio: format!("{:.1} times", p99.as_secs_f64() / idle_p99.as_secs_f64()),
                target: "p99 under 25 ms in each run",
                reached: Some(p99 < Duration::from_millis(25)),
            });
            bench.report.span(format!("{name}, idle, {}", backend.name()), &idle);
            bench.report.span(format!("{name}, all workers busy, {}", backend.name()), &busy);
        }
        // Not drained: the backlog is no longer needed.
        drop(process);
        installation.remove().await?;
    }
    Ok(())
}

async fn both(process: &Process, get: &[u8], post: &[u8], count: usize) -> anyhow::Result<(Latencies, Latencies)> {
    tokio::try_join!(
        paced(process.address, get, Expected::OK, INTERVAL, count),
        paced(process.address, post, Expected::CREATED, INTERVAL, count)
    )
}
