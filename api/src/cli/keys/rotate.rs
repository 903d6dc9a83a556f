//! `csrd keys rotate`: all steps, on one machine, beside the running service.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use shared::{
    clock::{Clock, SystemClock},
    storage::Store,
};
use tokio::time::Instant;

use super::{lacking, make, reseal::reseal, retire_key};
use crate::cli::{
    actor,
    data_dir::master_key_path_of,
    database::DatabaseArgs,
    master_keys,
    settings::{complain, say},
};

/// How long the service may take to load a master key, and to seal with it: it looks every few seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);

/// Changes the master key. What was begun before and not finished is finished, and nothing more is begun then.
pub async fn rotate(args: &DatabaseArgs, store: &dyn Store) -> anyhow::Result<ExitCode> {
    let registered = store.list_master_keys().await?;
    let Some(former) = master_keys::current(&registered) else {
        bail!("there is no master key yet: make the first one with `csrd keys init`");
    };
    let is_here = master_keys::load(&args.data_dir)?.iter().any(|file| file.key.id() == former);
    if !is_here {
        bail!("the current master key {former} is not in {}: run this where the workers run", args.data_dir.display());
    }
    let current = if registered.len() > 1 {
        complain(&format!("the master key {former} is current already: its rotation goes on"));
        former
    } else {
        let id = match unused(args, store, &former).await? {
            Some(id) => id,
            None => make(args, store).await?,
        };
        complain(&format!("{} is the new master key: keep a copy in a safe place", master_key_path_of(&args.data_dir, &id).display()));
        until_none_lacks(store, &id).await?;
        store.use_master_key(&id, &actor::local(), SystemClock.now()).await?;
        complain(&format!("the master key {id} seals from now on"));
        id
    };
    until_all_seal_with(store, &current).await?;
    let resealed = reseal(&args.data_dir, store).await?;
    if resealed != ExitCode::SUCCESS {
        return Ok(resealed);
    }
    for key in store.list_master_keys().await?.iter().filter(|key| !key.current) {
        say(&retire_key(args, store, &key.id).await?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A master key that was made here and never used: a rotation was stopped after that.
async fn unused(args: &DatabaseArgs, store: &dyn Store, former: &str) -> anyhow::Result<Option<String>> {
    let retired = store.list_retired().await?;
    let mut ids = master_keys::load(&args.data_dir)?.into_iter().map(|file| file.key.id());
    Ok(ids.find(|id| id != former && !retired.contains(id)))
}

async fn until_none_lacks(store: &dyn Store, id: &str) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let lacking = lacking(store, id).await?;
        if lacking.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "{} the master key {id}: copy master-{id}.key to the data directory there, and run `csrd keys rotate` again",
                lacking.join(", ")
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// So that nothing is sealed with the former one any more.
async fn until_all_seal_with(store: &dyn Store, id: &str) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let holders = store.list_key_holders().await?;
        let Some(other) = holders.iter().find(|holder| holder.sealing_id != id) else { return Ok(()) };
        if Instant::now() > end {
            bail!("the worker {} does not seal with the master key {id} yet: run `csrd keys rotate` again when it does", other.name);
        }
        tokio::time::sleep(LOOK).await;
    }
}
