//! What lies in a data directory.

use std::path::{Path, PathBuf};

/// The master key.
pub fn master_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("master.key")
}

/// The demo identity's key.
pub fn signing_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("signing.key")
}
