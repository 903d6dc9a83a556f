//! What lies in a data directory.

use std::{
    ffi::OsStr,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{bad_setting, settings::credentials_dir};

/// The first master key.
pub fn master_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("master.key")
}

/// Another master key.
pub fn master_key_path_of(data_dir: &Path, id: &str) -> PathBuf {
    data_dir.join(format!("master-{id}.key"))
}

/// The ID in the name of a master key's file; none in `master.key`.
pub fn master_key_name_id(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix("master-")?.strip_suffix(".key")
}

/// Whether a file of this name holds a master key.
pub fn is_master_key_name(name: &OsStr) -> bool {
    name == "master.key" || master_key_name_id(Path::new(name)).is_some()
}

/// The files of master keys, in the order in which they count: the credentials of the systemd unit first, and in each directory `master.key`
/// before the others.
pub fn master_key_files(data_dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for directory in credentials_dir().as_deref().into_iter().chain([data_dir]) {
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if error.kind() == ErrorKind::NotADirectory && directory == data_dir => {
                return Err(bad_setting(format!("--data-dir: {} is no directory", directory.display())));
            }
            entries => entries.with_context(|| format!("{} cannot be read", directory.display()))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| format!("{} cannot be read", directory.display()))?.file_name();
            if is_master_key_name(&name) {
                names.push(name);
            }
        }
        names.sort_by_key(|name| (name != "master.key", name.clone()));
        files.extend(names.into_iter().map(|name| directory.join(name)));
    }
    Ok(files)
}

/// The demo identity's key.
pub fn signing_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("signing.key")
}
