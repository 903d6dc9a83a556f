//! Other master keys, while all goes on.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Shared;
use crate::postgres::output;

/// Between two attempts at a step, which a fault may have stopped or a worker that does not know yet may hold up.
const PAUSE: Duration = Duration::from_secs(1);
/// No step takes so long, whatever goes wrong.
const PATIENCE: Duration = Duration::from_mins(5);

/// Rotates from time to time until the end. A rotation that was begun is finished.
pub async fn run(shared: &Shared, time: Duration, end: Instant) -> anyhow::Result<()> {
    let mut next = Instant::now() + time / 20;
    while next < end {
        tokio::time::sleep_until(next).await;
        next = Instant::now() + time / 12;
        rotate(shared).await?;
        shared.ledger().rotations += 1;
    }
    Ok(())
}

/// As the documentation says for several machines.
async fn rotate(shared: &Shared) -> anyhow::Result<()> {
    let status = step(shared, &["keys", "status", "--json"]).await?;
    let rows = status.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let current = rows.iter().find(|row| row["current"] == true).and_then(|row| row["id"].as_str());
    let former = current.context("no current master key")?.to_owned();
    let made = step(shared, &["keys", "new"]).await?;
    let new = made.split("master-").nth(1).and_then(|rest| rest.get(..16)).with_context(|| format!("no ID in {made}"))?.to_owned();
    shared.fleet.hand_out_master_keys()?;
    step(shared, &["keys", "use", &new]).await?;
    // A worker that has not heard of it yet seals with the former one: then that one is needed again.
    let give_up = Instant::now() + PATIENCE;
    loop {
        step(shared, &["keys", "reseal"]).await?;
        let retired = output(&mut shared.fleet.command(&["keys", "retire", &former])).await;
        let Err(error) = retired else { return Ok(()) };
        // Its answer may have been lost.
        let status = step(shared, &["keys", "status", "--json"]).await?;
        if !status.contains(&former) {
            return Ok(());
        }
        if Instant::now() > give_up {
            bail!("the master key {former} is not retired within {PATIENCE:?}: {error:#}");
        }
        shared.ledger().steps_again += 1;
        sleep(PAUSE).await;
    }
}

/// What a command says, once it succeeds.
async fn step(shared: &Shared, args: &[&str]) -> anyhow::Result<String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match output(&mut shared.fleet.command(args)).await {
            Ok(said) => return Ok(said),
            Err(error) if Instant::now() > give_up => return Err(error.context(format!("no success within {PATIENCE:?}"))),
            Err(_) => {
                shared.ledger().steps_again += 1;
                sleep(PAUSE).await;
            }
        }
    }
}
