//! `csrd keys`, and the master key of a process that seals.

use std::{io::ErrorKind, path::Path, process::ExitCode};

use anyhow::{Context, anyhow, bail};
use api::secret_file::{self, FileError};
use clap::Subcommand;
use shared::{
    clock::{Clock, SystemClock},
    ids::CustomCsrId,
    seal::{Binding, MasterKey, Sealer},
    storage::{Registration, Store},
};

use super::{
    data_dir::master_key_path,
    database::{DatabaseArgs, create_private_dir},
    settings::{Output, say},
};

/// Sealed records that are read at once.
const BATCH: u32 = 500;
/// Custom CSRs that are named of those whose record does not open.
const NAMED_MAX: usize = 10;

/// `csrd keys …`
#[derive(Subcommand)]
pub enum KeysAction {
    /// Make master.key in the data directory, and register it in the database; never overwrites one
    Init(DatabaseArgs),
    /// Open every sealed record with the master key
    Check(DatabaseArgs),
}

/// Runs `csrd keys …`.
pub async fn run(action: KeysAction) -> anyhow::Result<ExitCode> {
    match action {
        KeysAction::Init(args) => init(&args).await,
        KeysAction::Check(args) => check(&args).await,
    }
}

/// The database is asked first: beside one that knows another master key, a new one would only be in the way of the right one.
async fn init(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let path = master_key_path(&args.data_dir);
    let present = load(&args.data_dir)?;
    let database = args.open_or_create().await?;
    let sealer = sealer(&args.data_dir, &*database.store, IfMissing::Create).await?;
    database.close().await;
    let (path, id) = (path.display(), sealer.current_id());
    if present.is_some() {
        say(&format!("there is one already, which is kept: {path}, with the ID {id}"))?;
    } else {
        say(&format!("made {path} with the ID {id}: copy it to a safe place, without it no private key can be opened"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a master key file, or loads the one that another process made at the same moment; whether it was made here.
fn create(data_dir: &Path) -> anyhow::Result<(MasterKey, bool)> {
    let (path, key) = (master_key_path(data_dir), MasterKey::generate()?);
    match secret_file::create(&path, key.to_line().as_bytes()) {
        Ok(()) => Ok((locked(key), true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok((load(data_dir)?.with_context(|| format!("{} went away", path.display()))?, false))
        }
        Err(error) => Err(anyhow!(error).context(format!("{} cannot be created", path.display()))),
    }
}

fn load(data_dir: &Path) -> anyhow::Result<Option<MasterKey>> {
    let path = master_key_path(data_dir);
    let Some(bytes) = secret_file::read_secret_if_exists(&path)? else { return Ok(None) };
    let broken = || {
        let problem = if bytes.is_empty() { "it is empty" } else { "it is not one line with the base64 of 32 bytes" };
        FileError::new(&path, format!("{problem}: restore the master key from its backup"))
    };
    let line = std::str::from_utf8(&bytes).map_err(|_| broken())?;
    // Editors leave a byte order mark before it or a carriage return after it.
    let line = line.trim_start_matches('\u{feff}').trim_end();
    Ok(Some(locked(MasterKey::parse(line).map_err(|_| broken())?)))
}

/// Keeps a master key out of swap space, where the limit allows it.
fn locked(key: MasterKey) -> MasterKey {
    if let Err(error) = key.lock_in_memory() {
        tracing::warn!(
            "the master key is not locked in memory and may get into swap space: {error}; raise the limit (ulimit -l, LimitMEMLOCK=)"
        );
    }
    key
}

/// Opens records, for a command that seals nothing.
pub fn opener(data_dir: &Path) -> anyhow::Result<Sealer> {
    match load(data_dir)? {
        Some(key) => Ok(Sealer::new(key, Vec::new())),
        None => bail!("there is no {}: run this where the workers run, with their master key", master_key_path(data_dir).display()),
    }
}

/// What to do if there is no master key file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Make one, if none was ever registered.
    Create,
    /// Refuse: it has to be the one that the others have.
    Refuse,
}

/// The sealer of a process with workers. Its master key is the one that the database knows, or becomes that if the database never knew one.
pub async fn sealer(data_dir: &Path, store: &dyn Store, if_missing: IfMissing) -> anyhow::Result<Sealer> {
    let (path, registered) = (master_key_path(data_dir), store.list_master_keys().await?);
    let current = registered.iter().find(|key| key.current).map(|key| key.id.as_str());
    let (key, is_new) = match (load(data_dir)?, current) {
        (Some(key), _) => (key, false),
        (None, Some(current)) => bail!(
            "the database has the master key {current}, but there is no {}: restore that key from its backup, or copy it from another \
             machine with workers",
            path.display()
        ),
        (None, None) if if_missing == IfMissing::Refuse => {
            bail!("there is no {}: make one with `csrd keys init`, or copy it from the other worker machines", path.display())
        }
        (None, None) => {
            create_private_dir(data_dir)?;
            create(data_dir)?
        }
    };
    match store.register_master_key(&key.id(), SystemClock.now()).await? {
        Registration::Current => {}
        Registration::Other(current) => {
            // Another process registered its own in the meantime: the one that was made here sealed nothing.
            if is_new {
                let _ = std::fs::remove_file(&path);
            }
            bail!(
                "the database has the master key {current}, but {} is the master key {}: restore {current} from its backup, or copy it \
                 from another machine with workers",
                path.display(),
                key.id()
            );
        }
    }
    if is_new {
        tracing::info!(master_key_id = key.id(), "made a master key: keep a copy of {} in a safe place", path.display());
    }
    Ok(Sealer::new(key, Vec::new()))
}

/// Opens every record: damage to one is not seen before it is needed otherwise.
async fn check(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let database = args.open().await?;
    let (path, sealer) = (master_key_path(&args.data_dir), load(&args.data_dir)?.map(|key| Sealer::new(key, Vec::new())));
    let (mut opened, mut broken, mut named) = (0_u64, 0_u64, Vec::new());
    let mut after: Option<CustomCsrId> = None;
    loop {
        let records = database.store.list_sealed(after, BATCH).await?;
        let Some(last) = records.last() else { break };
        after = Some(last.id);
        for record in &records {
            let (id, scope) = (record.id.to_string(), record.scope.to_string());
            let binding = Binding::custom_csr(&id, &scope, &record.spki_sha256);
            let problem = match &sealer {
                Some(sealer) if sealer.holds(&record.master_key_id) => {
                    sealer.open(&binding, &record.sealed_private_key).err().map(|_| "was changed, or belongs to another row".to_owned())
                }
                Some(_) => Some(format!("needs the master key {}, which is not in {}", record.master_key_id, path.display())),
                None => Some(format!("needs the master key {}", record.master_key_id)),
            };
            match problem {
                None => opened += 1,
                Some(problem) => {
                    broken += 1;
                    if named.len() < NAMED_MAX {
                        named.push(format!("{scope}: the private key of custom CSR {id} {problem}"));
                    }
                }
            }
        }
    }
    let (mut output, registered) = (Output::new(), database.store.list_master_keys().await?);
    for row in &registered {
        output.line(&format!("master key {}{}", row.id, if row.current { ", current" } else { "" }))?;
    }
    database.close().await;
    let is_missing = sealer.is_none() && !registered.is_empty();
    if is_missing {
        output
            .line(&format!("there is no {}: restore the master key from its backup, or give the --data-dir that has it", path.display()))?;
    }
    for line in &named {
        output.line(line)?;
    }
    match (opened, broken) {
        (0, 0) => output.line("no sealed record yet")?,
        (_, 0) => output.line(&format!("ok, all {opened} sealed records were opened"))?,
        _ => output.line(&format!("{broken} of {} sealed records do not open", opened + broken))?,
    }
    Ok(if broken > 0 || is_missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
