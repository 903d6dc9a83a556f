//! How a process that seals follows its master keys, in their files and in the database, and reports which ones it has.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use api::health::MasterKeyState;
use shared::{
    seal::{MasterKey, Sealer},
    storage::{KeyHolder, MasterKeyRow, Store, StoreError},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use super::{
    files::{keys, load},
    sealer::current,
};
use crate::cli::{data_dir::master_key_files, reload::Fault};

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
    /// Begins. From now on, SIGHUP does not end the process.
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

    /// Ends, if it was begun: the process no longer counts as alive.
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
    /// The files at the last look.
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
            // An unavailable database has its own warnings.
            if let Err(error) = self.look(is_hangup).await {
                tracing::debug!(%error, "the master keys were not compared with the database");
            }
        }
    }

    async fn look(&mut self, is_hangup: bool) -> Result<(), StoreError> {
        // Use what was loaded before asking the database: while it is unavailable, loaded files must not be lost.
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

    /// From now on, seals with the current one and opens with all of these.
    fn hold(&self, current: String, held: Vec<MasterKey>) {
        if current != self.sealer.current_id() || ids(&held) != ids(&self.sealer.master_keys()) {
            tracing::info!(current, loaded = ids(&held).join(","), "the master keys changed");
            self.sealer.replace(current, held);
        }
    }

    /// The master keys that are here. They are loaded anew if the files changed, if one is missing, or on SIGHUP. If that fails, the former ones
    /// stay.
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

    /// Reports what is wrong: once in the log, and to the health check for as long as it lasts.
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
