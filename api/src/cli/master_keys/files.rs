//! The files of master keys.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, anyhow};
use api::secret_file::{self, FileError};
use shared::seal::MasterKey;

use crate::cli::data_dir::{master_key_files, master_key_name_id};

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
        // A file that is deleted at this moment does not count.
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

/// Keeps a master key out of swap space, if the limit allows it.
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

/// The master keys that were found, for people: the one file with its master key, or the IDs of all.
pub fn at_hand(data_dir: &Path, files: &[KeyFile]) -> String {
    if let [KeyFile { path, key }] = files {
        return format!("{} is master key {}", path.display(), key.id());
    }
    let ids: Vec<_> = files.iter().map(|file| file.key.id()).collect();
    format!("{} has the master keys {} alone", data_dir.display(), ids.join(", "))
}

/// The master keys of these files.
pub(super) fn keys(files: Vec<KeyFile>) -> Vec<MasterKey> {
    files.into_iter().map(|file| file.key).collect()
}

/// Makes a master key file, or loads the one that another process made at the same moment. Returns whether it was made here.
pub(super) fn create(path: &Path) -> anyhow::Result<(MasterKey, bool)> {
    let key = MasterKey::generate()?;
    match secret_file::create(path, key.to_line().as_bytes()) {
        Ok(()) => Ok((locked(key), true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok((locked(read(path)?.with_context(|| format!("{} went away", path.display()))?), false))
        }
        Err(error) => Err(anyhow!(error).context(format!("{} cannot be created", path.display()))),
    }
}
