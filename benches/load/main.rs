//! `csrd` beside its peers, and beside the limits that its own parts set, measured in one run on one machine.
//!
//!     cargo bench -p benches --bench load                        everything, about 25 minutes
//!     cargo bench -p benches --bench load -- --quick             everything, coarsely
//!     cargo bench -p benches --bench load -- --only burst        one part
//!     cargo bench -p benches --bench load -- --out               everything, and write the results, the plots and the tables
//!     cargo bench -p benches --bench load -- --soak 1h --out     memory under load for an hour
//!     cargo bench -p benches --bench load -- --soak 1h --faults  everything that tenants do, while processes die, connections are cut,
//!                                                                the server restarts and master keys change
//!
//! Needs Debian's `postgresql`, and `golang-cfssl` for the comparison with cfssl. A missed target is printed; it fails nothing. What a soak with
//! faults loses, makes twice or holds on to makes it fail.
//! What was started ends with this program, on an error and on Ctrl-C too; only SIGKILL leaves processes and `csrd-load-*` directories behind.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod accept;
mod bench;
mod drive;
mod http;
mod latency;
mod list;
mod memory;
mod numbers;
mod p256;
mod peers;
mod plot;
mod postgres;
mod report;
mod requests;
mod rsa;
mod scaling;
mod service;
mod soak;
mod usage;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{bail, ensure};
use bench::Bench;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

/// As in `csrd`, so that the peers in this program have no disadvantage.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where the results are kept.
const KEPT: &str = env!("CARGO_MANIFEST_DIR");

#[derive(Parser)]
#[command(name = "load")]
struct Args {
    /// Short runs and small tables
    #[arg(long)]
    quick: bool,
    /// One part alone; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Write the results there; without a directory to where they are kept
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = KEPT)]
    out: Option<PathBuf>,
    /// Measure memory over this time of load, and nothing else
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    soak: Option<Duration>,
    /// With --soak: faults all the time, and nothing may be lost by them
    #[arg(long, requires = "soak")]
    faults: bool,
    /// The directory for databases, on the disk that is to be measured
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
    /// cargo says so
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    serve_bare: Option<PathBuf>,
    #[arg(long, hide = true)]
    loop_keys: Option<u64>,
}

/// In the order in which they run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    Rsa,
    RsaLatency,
    Burst,
    P256,
    Accept,
    Get,
    Busy,
    List,
    Memory,
    Scaling,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(body) = &args.serve_bare {
        return peers::serve_bare(body);
    }
    if let Some(secs) = args.loop_keys {
        return peers::loop_keys(Duration::from_secs(secs));
    }
    // The load generator is one thread; what it started goes when its future is dropped, whatever ends it.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            done = run(args) => done,
            _ = terminate.recv() => bail!("terminated"),
            _ = interrupt.recv() => bail!("interrupted"),
        }
    })
}

async fn run(args: Args) -> anyhow::Result<()> {
    let (kept, out) = (Path::new(KEPT), args.out);
    ensure!(out.as_deref() != Some(kept) || args.only.is_empty(), "--only measures a part: give --out a directory of its own");
    let mut bench = Bench::start(args.quick, args.dir).await?;
    if let (Some(time), true) = (args.soak, args.faults) {
        let ended = soak::run(&bench, time).await?;
        let machine = report::machine(&bench.dir, &bench.report.versions, bench.quick).await?;
        println!("\n{machine}\n{}", ended.table);
        if let Some(out) = &out {
            report::write_soak(out, "faults", &format!("{machine}\n{}", ended.table))?;
        }
        ensure!(ended.broken.is_empty(), "what must not be:\n{}", ended.broken.join("\n"));
        return Ok(());
    }
    if let Some(time) = args.soak {
        let series = memory::soak(&mut bench, time).await?;
        let machine = report::machine(&bench.dir, &bench.report.versions, bench.quick).await?;
        println!("\n{machine}\n{}", bench.report.table());
        if let Some(out) = &out {
            report::write_soak(out, "memory", &format!("{machine}\n{}\n{series}\n", bench.report.table()))?;
        }
        return Ok(());
    }
    let mut broken = Vec::new();
    for part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(part) {
            continue;
        }
        println!("\n== {part:?}");
        let done = match part {
            Part::Rsa => rsa::sustained(&mut bench).await,
            Part::RsaLatency => rsa::one_at_a_time(&mut bench).await,
            Part::Burst => rsa::burst(&mut bench).await,
            Part::P256 => p256::sustained(&mut bench).await,
            Part::Accept => accept::accepted(&mut bench).await,
            Part::Get => requests::get_one(&mut bench).await,
            Part::Busy => latency::while_generating(&mut bench).await,
            Part::List => list::pages(&mut bench).await,
            Part::Memory => memory::creates(&mut bench).await,
            Part::Scaling => scaling::cost(&mut bench, out.as_deref()).await,
        };
        if let Err(error) = done {
            bench.report.note(format!("{part:?} was not measured: {error:#}"));
            broken.push(part);
        }
    }
    let machine = report::machine(&bench.dir, &bench.report.versions, bench.quick).await?;
    println!("\n{machine}\n{}", bench.report.table());
    if let Some(out) = &out {
        bench.report.write(out, &machine)?;
        println!("written to {}", out.display());
    }
    ensure!(broken.is_empty(), "not measured: {broken:?}");
    Ok(())
}
