//! `csrd keys`: the master keys.

mod check;
mod reseal;
mod rotate;
mod status;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use api::secret_file;
use clap::{Args, Subcommand};
use shared::{
    audit::{Action, NewEntry},
    clock::{Clock, SystemClock},
    seal::MasterKey,
    storage::{Retirement, Store},
};

use super::{
    actor,
    data_dir::{master_key_path, master_key_path_of},
    database::{DatabaseArgs, create_private_dir},
    listing::ListArgs,
    master_keys::{self, IfMissing},
    settings::{complain, say},
};

/// A worker that was seen within this time counts as live, as by the default of --orphan-after.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// `csrd keys …`
#[derive(Subcommand)]
pub enum KeysAction {
    /// Make master.key in the data directory, and register it in the database; never overwrites one
    Init(DatabaseArgs),
    /// Open every sealed record with the master keys
    Check(DatabaseArgs),
    /// List the master keys: which one seals, what each sealed, and which live workers have it
    Status(ListArgs),
    /// Make another master key, master-ID.key in the data directory; nothing uses it yet
    New(DatabaseArgs),
    /// Make a master key the one that seals
    Use(UseArgs),
    /// Seal with the current master key what other ones sealed; may be stopped and started again, beside running workers
    Reseal(DatabaseArgs),
    /// Forget a master key that no record needs
    Retire(IdArgs),
    /// Change the master key, on one machine beside the running service: new, use, reseal, retire; goes on where it was stopped
    Rotate(DatabaseArgs),
}

/// A master key.
#[derive(Args)]
pub struct IdArgs {
    /// The master key's ID, 16 hexadecimal digits
    #[arg(value_name = "ID", value_parser = key_id)]
    id: String,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Settings of `csrd keys use`.
#[derive(Args)]
pub struct UseArgs {
    #[command(flatten)]
    key: IdArgs,
    /// Do so even if a live worker lacks it: that one makes no keys until it gets it
    #[arg(long)]
    force: bool,
}

fn key_id(text: &str) -> Result<String, String> {
    let is_id = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_id { Ok(text.to_owned()) } else { Err("give 16 hexadecimal digits, as `csrd keys status` prints them".to_owned()) }
}

/// Runs `csrd keys …`.
pub async fn run(action: KeysAction) -> anyhow::Result<ExitCode> {
    match action {
        KeysAction::Init(args) => init(&args).await,
        KeysAction::Check(args) => check::check(&args).await,
        KeysAction::Status(args) => status::status(&args).await,
        KeysAction::New(args) => new(&args).await,
        KeysAction::Use(args) => use_key(&args).await,
        KeysAction::Reseal(args) => {
            let database = args.open().await?;
            let done = reseal::reseal(&args.data_dir, &*database.store).await;
            database.close().await;
            done
        }
        KeysAction::Retire(args) => retire(&args).await,
        KeysAction::Rotate(args) => {
            let database = args.open().await?;
            let done = rotate::rotate(&args, &*database.store).await;
            database.close().await;
            done
        }
    }
}

/// The database is asked first: beside one that knows another master key, a new one would only be in the way of the right one.
async fn init(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let present = master_keys::load(&args.data_dir)?;
    let database = args.open_or_create().await?;
    let sealer = master_keys::sealer(&args.data_dir, &*database.store, IfMissing::Create).await?;
    database.close().await;
    let id = sealer.current_id();
    match present.into_iter().find(|file| file.key.id() == id) {
        Some(file) => say(&format!("there is one already, which is kept: {}, with the ID {id}", file.path.display()))?,
        None => say(&format!(
            "made {} with the ID {id}: copy it to a safe place, without it no private key can be opened",
            master_key_path(&args.data_dir).display()
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn new(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let database = args.open().await?;
    let id = make(args, &*database.store).await?;
    database.close().await;
    let path = master_key_path_of(&args.data_dir, &id);
    say(&format!(
        "made {}, which nothing uses yet: keep a copy in a safe place, copy it to the data directory of every worker machine, and run \
         `csrd keys use {id}`",
        path.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes another master key beside those that are registered; its ID.
async fn make(args: &DatabaseArgs, store: &dyn Store) -> anyhow::Result<String> {
    if store.list_master_keys().await?.is_empty() {
        bail!("there is no master key yet: make the first one with `csrd keys init`");
    }
    create_private_dir(&args.data_dir)?;
    let key = MasterKey::generate()?;
    let (id, path) = (key.id(), master_key_path_of(&args.data_dir, &key.id()));
    store.record_entries(&[NewEntry::master_key(Action::KeyNew, &id)], &actor::local(), SystemClock.now()).await?;
    secret_file::create(&path, key.to_line().as_bytes()).with_context(|| format!("{} cannot be created", path.display()))?;
    Ok(id)
}

async fn use_key(args: &UseArgs) -> anyhow::Result<ExitCode> {
    let (id, data_dir) = (&args.key.id, &args.key.database.data_dir);
    let database = args.key.database.open().await?;
    let store = &*database.store;
    let registered = store.list_master_keys().await?;
    if registered.is_empty() {
        bail!("there is no master key yet: make the first one with `csrd keys init`");
    }
    let is_here = master_keys::load(data_dir)?.iter().any(|file| file.key.id() == *id);
    let holders = store.list_key_holders().await?;
    // One that nobody has would stop all workers: a slip is not forced.
    if !is_here && !holders.iter().any(|holder| holder.master_key_ids.contains(id)) {
        bail!("the master key {id} is neither in {} nor at a live worker: see `csrd keys status`", data_dir.display());
    }
    let lacking = lacking(store, id).await?;
    if !lacking.is_empty() && !args.force {
        bail!(
            "{} the master key {id}: copy master-{id}.key to the data directory there, which it reads within 10 s, or give --force",
            lacking.join(", ")
        );
    }
    let changed = store.use_master_key(id, &actor::local(), SystemClock.now()).await?;
    let others = store.count_sealed().await?.iter().filter(|key| key.id != *id).map(|key| key.sealed).sum::<u64>();
    database.close().await;
    let what = if changed { "seals from now on" } else { "is the current one already" };
    for lacking in lacking {
        complain(&format!("{lacking} it and makes no keys until it gets it"));
    }
    let next = if others > 0 { format!("; {others} records have another master key: run `csrd keys reseal`") } else { String::new() };
    say(&format!("the master key {id} {what}{next}"))?;
    Ok(ExitCode::SUCCESS)
}

/// The live workers that lack a master key, each with the words for it.
async fn lacking(store: &dyn Store, id: &str) -> anyhow::Result<Vec<String>> {
    let holders = store.list_key_holders().await?.into_iter().filter(|holder| !holder.master_key_ids.iter().any(|has| has == id));
    let silent = store.list_silent_workers(SEEN_WITHIN).await?;
    let mut lacking: Vec<_> = holders.map(|holder| format!("the worker {} lacks", holder.name)).collect();
    lacking.extend(silent.iter().map(|name| format!("the worker {name}, of a version that knows one master key only, lacks")));
    Ok(lacking)
}

async fn retire(args: &IdArgs) -> anyhow::Result<ExitCode> {
    let database = args.database.open().await?;
    let files = retire_key(&args.database, &*database.store, &args.id).await;
    database.close().await;
    say(&files?)?;
    Ok(ExitCode::SUCCESS)
}

/// Forgets a master key; what to do with its files. They stay: a backup from before needs the key.
async fn retire_key(args: &DatabaseArgs, store: &dyn Store, id: &str) -> anyhow::Result<String> {
    match store.retire_master_key(id, &actor::local(), SystemClock.now()).await? {
        Retirement::Retired => {}
        Retirement::Current => bail!("the master key {id} seals: make another one the current one first, with `csrd keys use`"),
        Retirement::Needed => bail!("records need the master key {id}: run `csrd keys reseal` first"),
        Retirement::Unknown => bail!("the database knows no master key {id}: see `csrd keys status`"),
    }
    let files = master_keys::load(&args.data_dir)?.into_iter().find(|file| file.key.id() == id).map(|file| file.path);
    let advice = match files {
        Some(path) => format!("nothing here needs {} any more", path.display()),
        None => "nothing here needs its file any more".to_owned(),
    };
    Ok(format!(
        "the master key {id} is forgotten, and {advice}: keep it with the backups from before, and delete it from every worker machine"
    ))
}
