//! Pages of a list, in a small and in a large table.

use std::time::Duration;

use crate::{
    bench::Bench,
    drive::{Expected, Latencies, Load, Watched},
    numbers::{grouped, ms},
    report::Row,
    service::{Backend, Installation},
};

/// Custom CSRs of each scope.
const A_SCOPE: usize = 10_000;

/// First and last page of a scope with 10,000, of tables of 10,000 and of 1,000,000.
pub async fn pages(bench: &mut Bench) -> anyhow::Result<()> {
    let large = if bench.quick { 100_000 } else { 1_000_000 };
    for backend in Backend::BOTH {
        let small = measured(bench, backend, A_SCOPE).await?;
        let big = measured(bench, backend, large).await?;
        for ((name, small), (_, big)) in small.into_iter().zip(big) {
            let ((small_p50, small_p99), (p50, p99)) = (small.p50_p99(), big.p50_p99());
            let ratio = p50.as_secs_f64() / small_p50.as_secs_f64();
            let label = format!("{name}, {}", backend.name());
            #[expect(clippy::cast_precision_loss, reason = "a million")]
            let rows = grouped(large as f64);
            bench.report.span(format!("{label}, 10,000 rows"), &small);
            bench.report.span(format!("{label}, {rows} rows"), &big);
            bench.report.row(Row {
                what: format!("list: {name} of a scope with 10,000 in a table of {rows}, {}", backend.name()),
                figure: format!("p50 {}, p99 {}", ms(p50), ms(p99)),
                beside: format!("in a table of 10,000: p50 {}, p99 {}", ms(small_p50), ms(small_p99)),
                ratio: format!("{ratio:.2} times"),
                target: "p99 under 10 ms, and the median no slower (within 10 %)",
                reached: Some(p99 < Duration::from_millis(10) && ratio <= 1.1),
            });
        }
    }
    Ok(())
}

async fn measured(bench: &Bench, backend: Backend, rows: usize) -> anyhow::Result<Vec<(&'static str, Latencies)>> {
    let installation = bench.install(backend, 1).await?;
    installation.execute(&filling(backend, rows)).await?;
    if backend == Backend::Postgres {
        // Autovacuum would do this a little later.
        installation.execute("VACUUM ANALYZE custom_csrs").await?;
    }
    let process = installation.serve(&["--workers", "0"]).await?;
    let token = installation.token().await?;
    let mut pages = Vec::new();
    for (name, page) in [("first page", 1), ("last page", A_SCOPE / 20)] {
        let get = Installation::get(&token, &format!("bench-0/custom_csrs?page={page}"));
        let load = Load {
            address: process.address,
            connections: 1,
            requests: vec![get].into(),
            expected: Expected { status: 200, contains: Some("\"count\":20,") },
        };
        let figures = load.run(bench.secs(1), bench.secs(5), &Watched::default()).await?;
        anyhow::ensure!(figures.failures == 0 && figures.done > 0, "{name}: {} unexpected answers", figures.failures);
        pages.push((name, figures.latencies));
    }
    process.stop().await?;
    installation.remove().await?;
    Ok(pages)
}

/// Active P-256 rows, those of the scopes mixed as they would come.
fn filling(backend: Backend, rows: usize) -> String {
    let scopes = rows / A_SCOPE;
    let (series, hex, hash, sealed, prepare) = match backend {
        Backend::Sqlite => (
            format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"),
            "printf('%08x', i)",
            "randomblob(32)",
            "zeroblob(250)",
            "PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000; PRAGMA temp_store = MEMORY;",
        ),
        Backend::Postgres => (
            format!("WITH n(i) AS (SELECT i FROM generate_series(1, {rows}) AS i)"),
            "lpad(to_hex(i), 8, '0')",
            "sha256(convert_to(CAST(i AS TEXT), 'UTF8'))",
            "decode(repeat('ab', 250), 'hex')",
            "",
        ),
    };
    let text = |length: usize| format!("'{}'", "MIIBQTCB6QIBADBs".repeat(length / 16));
    format!(
        "{prepare}
        INSERT INTO master_keys (id, current, created_at) VALUES ('bench', 0, 0);
        {series} INSERT INTO scopes (scope, kind, granted, quota, used, updated_at)
            SELECT 'zones/bench-' || i, 'zone', 1, 4000000000, {A_SCOPE}, 0 FROM n WHERE i < {scopes};
        UPDATE scopes SET used = {A_SCOPE};
        {series} INSERT INTO custom_csrs (id, scope, status, created_at, updated_at, country, state, locality, organization, common_name,
                name, sans, key_type, search_text, csr_pem, job_id, master_key_id, spki_sha256, sealed_private_key)
            SELECT {hex} || '-0000-7000-8000-000000000000', 'zones/bench-' || (i % {scopes}), 'active', 1790000000000000 + i * 1000,
                1790000000000000 + i * 1000, 'US', 'California', 'San Francisco', 'Acme Widgets, Inc.', 'www.acme-widgets.com', 'shop',
                '[\"www.acme-widgets.com\",\"acme-widgets.com\"]', 'p256v1', 'shop www.acme-widgets.com acme-widgets.com', {csr}, 'job-' || i,
                'bench', {hash}, {sealed} FROM n;
        {checkpoint}",
        csr = text(560),
        checkpoint = if backend == Backend::Sqlite { "PRAGMA wal_checkpoint(TRUNCATE);" } else { "" },
    )
}
