//! What `csrctl login` stores for the commands after it.

use std::{
    fs::{self, DirBuilder},
    io::{ErrorKind, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{failure::Failure, scope::Scope};

/// A service, a token for it, and the zone or account that commands are about.
#[derive(Serialize, Deserialize)]
pub struct Login {
    pub url: String,
    pub token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl Login {
    /// The login that was stored in this file, if one was.
    pub fn load(path: &Path) -> Result<Option<Self>, Failure> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Failure::usage(format!("{} cannot be read: {error}", path.display()))),
        };
        let broken = |error| Failure::usage(format!("{} is broken ({error}): run csrctl login again", path.display()));
        serde_json::from_slice(&text).map(Some).map_err(broken)
    }

    /// Stores it in this file, for this user alone.
    pub fn store(&self, path: &Path) -> Result<(), Failure> {
        self.write(path).map_err(|error| Failure::usage(format!("{} cannot be written: {error}", path.display())))
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // Made with 0600, and renamed: nobody reads half a login.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(format!("{}\n", serde_json::to_string_pretty(self)?).as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// The zone or account that was given at the login.
    pub fn scope(&self) -> Result<Option<Scope>, Failure> {
        Scope::of(self.zone.clone(), self.account.clone(), "the zone and the account of the login")
    }
}
