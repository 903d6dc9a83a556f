//! A long load with faults: what tenants do, all day, on PostgreSQL with two API processes and three workers, while processes die, connections are
//! cut, the server restarts and master keys change. At the end nothing may be lost, no key be there twice, and no memory have grown.

mod authority;
mod client;
mod faults;
mod ledger;
mod processes;
mod proxy;
mod rotation;
mod verdict;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use authority::Authority;
use client::Client;
use faults::Faults;
use ledger::Ledger;
use processes::Fleet;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    bench::Bench,
    service::{Backend, Process},
};

/// Tenants' clients. Each sends a request at a time.
const CLIENTS: usize = 12;
/// What is accepted at the end has so long to be decided.
const SETTLING: Duration = Duration::from_mins(3);

/// What all tasks share.
struct Shared {
    fleet: Fleet,
    ledger: Mutex<Ledger>,
    authority: Authority,
    token: String,
    zones: Vec<String>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }
}

/// A panic of another task ends the run; it does not spoil what is counted.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How it ended.
pub struct Ended {
    /// The table, as Markdown.
    pub table: String,
    /// What must not be, in words; empty if all is well.
    pub broken: Vec<String>,
}

/// Runs the load for this time.
pub async fn run(bench: &Bench, time: Duration) -> anyhow::Result<Ended> {
    let installation = bench.install(Backend::Postgres, CLIENTS).await?;
    installation.init_keys().await?;
    let (token, zones) = (installation.token().await?, installation.zones().to_vec());
    let fleet = Fleet::new(installation).await?;
    let processes = fleet.start_all().await?;
    let shared = Arc::new(Shared { fleet, ledger: Mutex::default(), authority: Authority::new()?, token, zones });
    let ended = load(&shared, processes, time).await;
    if !ended.as_ref().is_ok_and(|ended| ended.broken.is_empty()) {
        println!("the logs stay in {}", shared.fleet.keep_logs()?.display());
    }
    ended
}

async fn load(shared: &Arc<Shared>, processes: Vec<Process>, time: Duration) -> anyhow::Result<Ended> {
    let (begin, mut clients, mut watching) = (Instant::now(), JoinSet::new(), JoinSet::new());
    let end = begin + time;
    for number in 0..CLIENTS {
        clients.spawn(Client::new(number, Arc::clone(shared)).run(end));
    }
    watching.spawn(watch(Arc::clone(shared), begin, time));
    // A fault that cannot be made ends the run: a table over half a load would mislead.
    let (processes, ()) = tokio::try_join!(Faults::new(processes, Arc::clone(shared), time).run(end), rotation::run(shared, time, end))?;
    while let Some(client) = clients.join_next().await {
        client?;
    }
    println!("the load has ended; what is pending is decided");
    settle(shared).await?;
    drop(watching);
    let mut ended = verdict::judge(shared, time).await?;
    shared.fleet.stop_all(processes).await?;
    ended.broken.extend(shared.fleet.panics()?);
    Ok(ended)
}

/// Looks at memory every few seconds, and says each minute how it goes.
async fn watch(shared: Arc<Shared>, begin: Instant, time: Duration) {
    let mut looks = tokio::time::interval((time / 360).max(Duration::from_secs(1)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let every = (time / 6).min(Duration::from_mins(1));
    let mut next = begin + every;
    loop {
        looks.tick().await;
        shared.fleet.look();
        if Instant::now() >= next {
            next += every;
            println!("{:>5} s: {}; {}", begin.elapsed().as_secs(), shared.ledger().progress(), shared.fleet.progress());
        }
    }
}

/// Waits until no custom CSR is pending, for a bounded time: those that are left are lost, and the verdict says so.
async fn settle(shared: &Shared) -> anyhow::Result<()> {
    let end = Instant::now() + SETTLING;
    let pending = "SELECT count(*) FROM custom_csrs WHERE status = 'pending'";
    while Instant::now() < end && shared.fleet.installation().number(pending).await? > 0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
