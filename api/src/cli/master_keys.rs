//! The master keys of a process: their files, and how a process that seals follows them and the database.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use api::{
    health::MasterKeyState,
    secret_file::{self, FileError},
};
use shared::{
    clock::{Clock, SystemClock},
    seal::{MasterKey, Sealer},
    storage::{KeyHolder, MasterKeyRow, Registration, Store, StoreError},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use super::{
    data_dir::{master_key_files, master_key_name_id, master_key_path},
    database::create_private_dir,
    reload::Fault,
};

/// A master key and the file that it is in.
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// The master key.
    pub key: MasterKey,
}

/// Loads all master keys of a data directory and of the credentials of a systemd unit. Of two files with one key, the first counts.
pub fn load(data_dir: &Path) -> anyhow::Result<Vec<KeyFile>> {
    let mut loaded: Vec<KeyFile> = Vec::new();
    for path in master_key_files(data_dir)? {
        // One that goes away at this moment is none.
        let Some(key) = read(&path)? else { continue };
        if !loaded.iter().any(|other| other.key.id() == key.id()) {
            loaded.push(KeyFile { path, key: locked(key) });
        }
    }
    Ok(loaded)
}

fn read(path: &Path) -> anyhow::Result<Option<MasterKey>> {
    let Some(bytes) = secret_file::read_secret_if_exists(path)? else { return Ok(None) };
    let broken = || {
        let problem = if bytes.is_empty() { "it is empty" } else { "it is not one line with the base64 of 32 bytes" };
        FileError::new(path, format!("{problem}: restore the master key from its backup"))
    };
    let line = std::str::from_utf8(&bytes).map_err(|_| broken())?;
    // Editors leave a byte order mark before it or a carriage return after it.
    let line = line.trim_start_matches('\u{feff}').trim_end();
    let key = MasterKey::parse(line).map_err(|_| broken())?;
    let id = key.id();
    if master_key_name_id(path).is_some_and(|name| name != id) {
        return Err(FileError::new(path, format!("it holds the master key {id}: rename it to master-{id}.key")).into());
    }
    Ok(Some(key))
}

/// Keeps a master key out of swap space, where the limit allows it.
fn locked(key: MasterKey) -> MasterKey {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = key.lock_in_memory()
        && !WARNED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            "the master key is not locked in memory and may get into swap space: {error}; raise the limit (ulimit -l, LimitMEMLOCK=)"
        );
    }
    key
}

/// What is at hand, for people: the one file and its master key, or the IDs of all.
pub fn at_hand(data_dir: &Path, files: &[KeyFile]) -> String {
    if let [KeyFile { path, key }] = files {
        return format!("{} is master key {}", path.display(), key.id());
    }
    let ids: Vec<_> = files.iter().map(|file| file.key.id()).collect();
    format!("{} has the master keys {} alone", data_dir.display(), ids.join(", "))
}

fn keys(files: Vec<KeyFile>) -> Vec<MasterKey> {
    files.into_iter().map(|file| file.key).collect()
}

/// What to do if there is no master key file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Make one, if none was ever registered.
    Create,
    /// Refuse: it has to be the one that the others have.
    Refuse,
}

/// The sealer of a process with workers: with all master keys that are here, of which the one seals that the database names. Where the
/// database never knew one, the one that is here is registered.
pub async fn sealer(data_dir: &Path, store: &dyn Store, if_missing: IfMissing) -> anyhow::Result<Sealer> {
    // The database first: what another process made here and registered meanwhile is found then, for the file comes before the row.
    let current = current(&store.list_master_keys().await?);
    let (files, path) = (load(data_dir)?, master_key_path(data_dir));
    if let Some(current) = current {
        return with_current(data_dir, files, current);
    }
    let (files, is_new) = match files.as_slice() {
        [] if if_missing == IfMissing::Refuse => {
            bail!("there is no {}: make one with `csrd keys init`, or copy it from the other worker machines", path.display())
        }
        [] => {
            create_private_dir(data_dir)?;
            let (key, is_new) = create(&path)?;
            (vec![KeyFile { path: path.clone(), key }], is_new)
        }
        _ => (files, false),
    };
    let first = match files.as_slice() {
        [one] => one,
        // The one with the plain name is the first that a machine has.
        several => several.iter().find(|file| master_key_name_id(&file.path).is_none()).with_context(|| {
            format!("the database knows no master key yet, and {}: name one of these files master.key", at_hand(data_dir, several))
        })?,
    };
    let id = first.key.id();
    match store.register_master_key(&id, SystemClock.now()).await? {
        Registration::Current => {}
        Registration::Other(current) => {
            // Another process registered its own in the meantime: the one that was made here sealed nothing.
            let files = if is_new {
                let _ = std::fs::remove_file(&path);
                Vec::new()
            } else {
                files
            };
            return with_current(data_dir, files, current);
        }
    }
    if is_new {
        tracing::info!(master_key_id = id, "made a master key: keep a copy of {} in a safe place", path.display());
    }
    Ok(Sealer::of(id, keys(files)))
}

fn with_current(data_dir: &Path, files: Vec<KeyFile>, current: String) -> anyhow::Result<Sealer> {
    if files.iter().any(|file| file.key.id() == current) {
        return Ok(Sealer::of(current, keys(files)));
    }
    if files.is_empty() {
        bail!(
            "the database has the master key {current}, but there is no {}: restore that key from its backup, or copy it from another \
             machine with workers",
            master_key_path(data_dir).display()
        );
    }
    bail!(
        "the database has the master key {current}, but {}: restore {current} from its backup, or copy it from another machine with workers",
        at_hand(data_dir, &files)
    )
}

/// Makes a master key file, or loads the one that another process made at the same moment; whether it was made here.
fn create(path: &Path) -> anyhow::Result<(MasterKey, bool)> {
    let key = MasterKey::generate()?;
    match secret_file::create(path, key.to_line().as_bytes()) {
        Ok(()) => Ok((locked(key), true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok((locked(read(path)?.with_context(|| format!("{} went away", path.display()))?), false))
        }
        Err(error) => Err(anyhow!(error).context(format!("{} cannot be created", path.display()))),
    }
}

/// The ID of the one that seals.
pub fn current(registered: &[MasterKeyRow]) -> Option<String> {
    registered.iter().find(|key| key.current).map(|key| key.id.clone())
}

/// The longest time between two looks at the files and at the database.
const LOOK: Duration = Duration::from_secs(3);
/// How long the last report of a process may take.
const LAST_REPORT: Duration = Duration::from_millis(500);

/// Follows the master keys of a process that seals, and reports which ones it has.
pub struct Following {
    store: Arc<dyn Store>,
    holder: KeyHolder,
    state: watch::Receiver<MasterKeyState>,
    task: JoinHandle<()>,
}

/// Whose master keys are followed.
pub struct Process<'a> {
    /// The process' ID in the job queue.
    pub id: &'a str,
    /// Where its files are.
    pub data_dir: &'a Path,
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// Without a sign of life for this long, it counts as dead.
    pub orphan_after: Duration,
}

impl Following {
    /// Begins. From this call on SIGHUP does not end the process.
    pub fn begin(store: &Arc<dyn Store>, sealer: Arc<Sealer>, process: &Process<'_>) -> std::io::Result<Self> {
        let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        let name = format!("{host}:{}", std::process::id());
        let holder = KeyHolder { id: process.id.to_owned(), name, master_key_ids: Vec::new(), sealing_id: String::new() };
        let (found, state) = watch::channel(MasterKeyState::default());
        let follower = Follower {
            store: Arc::clone(store),
            sealer,
            data_dir: process.data_dir.to_owned(),
            holder: holder.clone(),
            lease: process.orphan_after,
            files: None,
            fault: Fault::default(),
            found,
        };
        let hangups = signal(SignalKind::hangup())?;
        let task = tokio::spawn(follower.follow(hangups, process.heartbeat.min(LOOK)));
        Ok(Self { store: Arc::clone(store), holder, state, task })
    }

    /// What is wrong with the master keys.
    pub fn state(&self) -> watch::Receiver<MasterKeyState> {
        self.state.clone()
    }

    /// Ends, if it was begun: the process no longer counts as live.
    pub async fn end(following: Option<Self>) {
        let Some(Self { store, holder, task, .. }) = following else { return };
        task.abort();
        let _ = tokio::time::timeout(LAST_REPORT, store.report_key_holder(&holder, Duration::ZERO)).await;
    }
}

fn ids(keys: &[MasterKey]) -> Vec<String> {
    keys.iter().map(MasterKey::id).collect()
}

struct Follower {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    data_dir: PathBuf,
    holder: KeyHolder,
    lease: Duration,
    /// Those that were there at the last look.
    files: Option<Vec<PathBuf>>,
    /// Why they could not be loaded, if so.
    fault: Fault,
    found: watch::Sender<MasterKeyState>,
}

impl Follower {
    async fn follow(mut self, mut hangups: Signal, interval: Duration) {
        let mut look = tokio::time::interval(interval);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_hangup = tokio::select! {
                _ = look.tick() => false,
                _ = hangups.recv() => true,
            };
            // A database that is away has its own warnings.
            if let Err(error) = self.look(is_hangup).await {
                tracing::debug!(%error, "the master keys were not compared with the database");
            }
        }
    }

    async fn look(&mut self, is_hangup: bool) -> Result<(), StoreError> {
        // What was loaded is in place before the database is asked: while it is away, files are not forgotten.
        let held = self.reloaded(is_hangup);
        self.hold(self.sealer.current_id(), held);
        let registered = self.store.list_master_keys().await?;
        let current = current(&registered).unwrap_or_else(|| self.sealer.current_id());
        self.hold(current.clone(), self.sealer.master_keys());
        self.tell(&registered);
        self.holder.master_key_ids = ids(&self.sealer.master_keys());
        self.holder.sealing_id = current;
        self.store.report_key_holder(&self.holder, self.lease).await
    }

    /// Seals with this one from now on, and opens with these.
    fn hold(&self, current: String, held: Vec<MasterKey>) {
        if current != self.sealer.current_id() || ids(&held) != ids(&self.sealer.master_keys()) {
            tracing::info!(current, loaded = ids(&held).join(","), "the master keys changed");
            self.sealer.replace(current, held);
        }
    }

    /// The master keys that are here, loaded anew where the files changed, where one is missing, and when somebody asks for it. What cannot be
    /// loaded leaves the former ones.
    fn reloaded(&mut self, is_hangup: bool) -> Vec<MasterKey> {
        let held = self.sealer.master_keys();
        let loaded = master_key_files(&self.data_dir).and_then(|files| {
            let is_due = is_hangup || self.sealer.lacks().is_some() || self.fault.is_there() || self.files.as_ref() != Some(&files);
            let loaded = is_due.then(|| load(&self.data_dir)).transpose()?;
            self.files = Some(files);
            Ok(loaded)
        });
        match loaded {
            Ok(None) => held,
            Ok(Some(files)) => {
                self.fault.mended();
                keys(files)
            }
            Err(error) => {
                let text = format!("{error:#}");
                if self.fault.is_news(&text, is_hangup) {
                    tracing::error!(error = text, "the master keys stay as they are");
                }
                held
            }
        }
    }

    /// Says what is wrong, once in the log, and for as long as it lasts to the health check.
    fn tell(&self, registered: &[MasterKeyRow]) {
        let missing: BTreeSet<_> = registered.iter().filter(|key| key.in_use && !self.sealer.holds(&key.id)).map(|key| &key.id).collect();
        let missing: Vec<_> = missing.into_iter().map(String::as_str).collect();
        let dir = self.data_dir.display();
        let state = MasterKeyState {
            not_ready: self.sealer.lacks().map(|id| {
                format!("the current master key is {id}, which this process lacks: copy master-{id}.key from where it was made to {dir}")
            }),
            degraded: (!missing.is_empty()).then(|| {
                let ids = missing.join(", ");
                format!("private keys need the master key {ids}, which this process lacks: copy it from another worker machine or a backup to {dir}")
            }),
        };
        self.found.send_if_modified(|former| {
            if *former == state {
                return false;
            }
            match (&state.not_ready, &former.not_ready) {
                (Some(text), was) if was.as_ref() != Some(text) => {
                    tracing::error!("custom CSRs are left to other workers: {text}");
                }
                (None, Some(_)) => tracing::info!("this process has the current master key now"),
                _ => {}
            }
            if let Some(text) = state.degraded.as_ref().filter(|text| former.degraded.as_ref() != Some(text)) {
                tracing::error!("{text}");
            }
            *former = state;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use shared::testing::{TestDatabase, faulty::FaultyStore};

    use super::*;

    #[tokio::test]
    async fn a_first_start_finds_the_master_key_that_another_one_makes_here_at_the_same_moment() {
        let database = TestDatabase::new().await;
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::generate().unwrap();
        database.database.store.register_master_key(&key.id(), SystemClock.now()).await.unwrap();
        let (path, id, line) = (master_key_path(dir.path()), key.id(), key.to_line());
        let store = FaultyStore::meanwhile(Arc::clone(&database.database.store), "list_master_keys", move || {
            let _ = secret_file::create(&path, line.as_bytes());
        });
        for if_missing in [IfMissing::Create, IfMissing::Refuse] {
            let _ = std::fs::remove_file(master_key_path(dir.path()));
            assert_eq!(sealer(dir.path(), &store, if_missing).await.unwrap().current_id(), id);
        }
    }
}
