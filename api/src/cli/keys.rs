//! `csrd keys`, and the master key of a process that seals.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use shared::{
    clock::{Clock, SystemClock},
    seal::{Binding, MasterKey, Sealer},
    storage::{MasterKeyRow, Store},
};
use zeroize::Zeroizing;

use super::database::{DatabaseArgs, create_private_dir};

/// `csrd keys …`
#[derive(Subcommand)]
pub enum KeysAction {
    /// Make master.key in the data directory; never overwrites one
    Init(InitArgs),
    /// Open a sealed record of each master key that the database names
    Check(DatabaseArgs),
}

/// Where the master key goes.
#[derive(Args)]
pub struct InitArgs {
    /// The directory that gets master.key
    #[arg(long, env = "CSRD_DATA_DIR", hide_env_values = true, default_value = "./csrd-data")]
    data_dir: PathBuf,
}

/// Runs `csrd keys …`.
pub async fn run(action: KeysAction) -> anyhow::Result<ExitCode> {
    match action {
        KeysAction::Init(args) => {
            create_private_dir(&args.data_dir)?;
            let key = create(&args.data_dir)?;
            println!(
                "made {} with the ID {}: copy it to a safe place, without it no private key can be opened",
                path(&args.data_dir).display(),
                key.id()
            );
            Ok(ExitCode::SUCCESS)
        }
        KeysAction::Check(args) => check(&args).await,
    }
}

/// The master key file of a data directory.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("master.key")
}

fn create(data_dir: &Path) -> anyhow::Result<MasterKey> {
    let (path, key) = (path(data_dir), MasterKey::generate()?);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.with_context(|| format!("{} cannot be created", path.display()))?;
    file.write_all(key.to_line().as_bytes())?;
    file.sync_all()?;
    std::fs::File::open(data_dir)?.sync_all()?;
    Ok(key)
}

fn load(data_dir: &Path) -> anyhow::Result<Option<MasterKey>> {
    let path = path(data_dir);
    match std::fs::read_to_string(&path).map(Zeroizing::new) {
        Ok(line) => Ok(Some(MasterKey::parse(&line).with_context(|| path.display().to_string())?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow!(error).context(format!("{} cannot be read", path.display()))),
    }
}

/// What opens records, for a command that seals nothing.
pub fn opener(data_dir: &Path) -> anyhow::Result<Sealer> {
    match load(data_dir)? {
        Some(key) => Ok(Sealer::new(key, Vec::new())),
        None => bail!("there is no {}: run this where the workers run, with their master key", path(data_dir).display()),
    }
}

/// What to do where there is no master key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// Make one, if no sealed record needs another.
    Make,
    /// Refuse: it has to be the one that the others have.
    Refuse,
}

/// The sealer of a process with workers. A master key is made only where no sealed record needs another one; the database
/// remembers which one it is.
pub async fn sealer(data_dir: &Path, store: &dyn Store, lacking: Lacking) -> anyhow::Result<Sealer> {
    let known = store.list_master_keys().await?;
    let needed: Vec<&MasterKeyRow> = known.iter().filter(|key| key.in_use).collect();
    let key = match load(data_dir)? {
        Some(key) => key,
        None if lacking == Lacking::Refuse => {
            bail!("there is no {}: make one with `csrd keys init`, or copy it from the other worker machines", path(data_dir).display())
        }
        None if needed.is_empty() => {
            create_private_dir(data_dir)?;
            let key = create(data_dir)?;
            tracing::info!(master_key_id = key.id(), "made a master key: keep a copy of master.key in a safe place");
            key
        }
        None => bail!(
            "the private keys in the database are sealed with master key {}, but there is no {}: restore it from its backup",
            ids(&needed),
            path(data_dir).display()
        ),
    };
    let sealer = Sealer::new(key, Vec::new());
    let lacking: Vec<&MasterKeyRow> = needed.into_iter().filter(|key| !sealer.holds(&key.id)).collect();
    if !lacking.is_empty() {
        bail!(
            "the private keys in the database are sealed with master key {}, but {} is master key {}: restore the right one from its backup",
            ids(&lacking),
            path(data_dir).display(),
            sealer.current_id()
        );
    }
    store.register_master_key(&sealer.current_id(), SystemClock.now()).await?;
    Ok(sealer)
}

fn ids(keys: &[&MasterKeyRow]) -> String {
    keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(", ")
}

async fn check(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let store = args.open().await?.store;
    let sealer = load(&args.data_dir)?.map(|key| Sealer::new(key, Vec::new()));
    let mut failed = false;
    for row in store.list_master_keys().await? {
        let verdict = verdict(&*store, sealer.as_ref(), &row).await?;
        failed |= verdict.is_err();
        println!("{}: {}", row.id, verdict.unwrap_or_else(|problem| problem));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn verdict(store: &dyn Store, sealer: Option<&Sealer>, row: &MasterKeyRow) -> anyhow::Result<Result<&'static str, &'static str>> {
    let Some(record) = store.sample_sealed(&row.id).await? else { return Ok(Ok("ok, no sealed record needs it")) };
    let Some(sealer) = sealer.filter(|sealer| sealer.holds(&row.id)) else { return Ok(Err("this master key is not in master.key")) };
    let (id, scope) = (record.id.to_string(), record.scope.to_string());
    let opened = sealer.open(&Binding::custom_csr(&id, &scope, &record.spki_sha256), &record.sealed_private_key);
    Ok(if opened.is_ok() { Ok("ok, a sealed record was opened") } else { Err("a sealed record does not open") })
}
