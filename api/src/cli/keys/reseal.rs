//! `csrd keys reseal`: seals with the current master key what other ones sealed.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::bail;
use shared::{
    audit::{Action, NewEntry},
    clock::{Clock, SystemClock},
    seal::Sealer,
    storage::{Resealed, SealedRecord, Store},
};
use tokio::time::Instant;

use crate::cli::{
    actor, master_keys,
    settings::{complain, say},
};

/// Records that one transaction seals anew: each is a moment's work, so that requests do not wait.
const BATCH: u32 = 50;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// How long records that other transactions hold are waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Records that are named of those that do not open.
const NAMED_MAX: usize = 10;

/// What one pass over all records came to.
#[derive(Default)]
struct Pass {
    resealed: u64,
    /// Those that others held, or changed meanwhile.
    left: u64,
    /// Why records do not open.
    broken: Vec<String>,
    broken_count: u64,
}

/// Seals everything anew, pass after pass, until a pass finds nothing left: workers that did not hear yet of the current master key may have
/// sealed with another one meanwhile.
pub async fn reseal(data_dir: &Path, store: &dyn Store) -> anyhow::Result<ExitCode> {
    let Some(current) = master_keys::current(&store.list_master_keys().await?) else {
        say("there is no master key yet, and no sealed record")?;
        return Ok(ExitCode::SUCCESS);
    };
    let files = master_keys::load(data_dir)?;
    if !files.iter().any(|file| file.key.id() == current) {
        bail!("the current master key {current} is not in {}: run this where the workers run", data_dir.display());
    }
    let sealer = Sealer::of(current.clone(), files.into_iter().map(|file| file.key).collect());
    let (mut total, mut moved) = (0, Instant::now());
    let broken = loop {
        let pass = pass(store, &sealer, total).await?;
        total += pass.resealed;
        if pass.left == 0 && pass.resealed == 0 {
            break pass;
        }
        if pass.resealed > 0 {
            moved = Instant::now();
        } else if moved.elapsed() > PATIENCE {
            bail!("{} records are held by other transactions, or another master key seals now: run `csrd keys reseal` again", pass.left);
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    };
    if total > 0 {
        store.record_entries(&[NewEntry::master_key(Action::KeyReseal, &current)], &actor::local(), SystemClock.now()).await?;
    }
    for line in &broken.broken {
        complain(line);
    }
    if broken.broken_count > 0 {
        bail!("{} records do not open and stay as they are; {total} were sealed anew with the master key {current}", broken.broken_count);
    }
    say(&format!("sealed {total} records anew: all have the master key {current}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn pass(store: &dyn Store, sealer: &Sealer, before: u64) -> anyhow::Result<Pass> {
    let (mut pass, mut told) = (Pass::default(), Instant::now());
    let others: Vec<_> = store.count_sealed().await?.into_iter().filter(|key| !key.current && key.sealed > 0).collect();
    let total = before + others.iter().map(|key| key.sealed).sum::<u64>();
    for key in &others {
        if !sealer.holds(&key.id) {
            pass.broken_count += key.sealed;
            pass.broken.push(format!("{} records need the master key {}, which is not here: copy it from its backup", key.sealed, key.id));
            continue;
        }
        let mut after: Option<SealedRecord> = None;
        loop {
            let records = store.list_sealed_by(&key.id, after.as_ref(), BATCH).await?;
            let Some(last) = records.last().cloned() else { break };
            let mut batch = Vec::with_capacity(records.len());
            for record in records {
                let anew = sealer.reseal(&record.binding(), &record.sealed);
                if let Ok(resealed) = anew {
                    batch.push(Resealed { record, master_key_id: sealer.current_id(), resealed });
                    continue;
                }
                pass.broken_count += 1;
                if pass.broken.len() < NAMED_MAX {
                    let (table, column) = (record.binding().table, record.binding().column);
                    let what = format!("{table} {}: its {column}, of master key {}", record.id, key.id);
                    pass.broken.push(format!("{what}, was changed, or belongs to another row"));
                }
            }
            let done = store.reseal(&batch).await?;
            pass.resealed += done;
            pass.left += u64::try_from(batch.len()).unwrap_or(u64::MAX).saturating_sub(done);
            after = Some(last);
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                complain(&format!("sealed {} of {total} records anew", before + pass.resealed));
            }
        }
    }
    if pass.resealed > 0 {
        complain(&format!("sealed {} of {} records anew", before + pass.resealed, total.max(before + pass.resealed)));
    }
    Ok(pass)
}
