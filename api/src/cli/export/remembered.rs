//! What an export was told, for the next one: `DIR/.csrd/export.json`.
//!
//! That of a new version lies in the version's directory first: it counts from the moment on at which `current` leads there.

use std::{io, os::fd::OwnedFd};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use shared::ids::CustomCertificateId;

use super::{
    disk::{self, Access},
    options::{FileMode, Options},
};

/// The file's name.
pub const NAME: &str = "export.json";
/// The file's name until it is complete.
pub const NEW: &str = "export.json.new";
const VERSION: u32 = 1;
const READABLE_BY_GROUP: u32 = 0o040;

/// Whose a directory is, and how its files are written.
///
/// The command is remembered too: nobody can put another in its place, since a directory is used only if root or the own user owns it and
/// no other can write to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    version: u32,
    /// The custom certificate's ID.
    pub certificate_id: String,
    mode: FileMode,
    owner: Option<u32>,
    group: Option<u32>,
    /// Whether there is a combined.pem.
    pub combined: bool,
    /// What to run when something changed.
    pub exec: Option<String>,
    /// Whether something changed and the command did not succeed since.
    pub is_command_due: bool,
}

impl Remembered {
    /// For the first export of a certificate.
    pub fn new(certificate_id: &str) -> Self {
        let certificate_id = certificate_id.to_owned();
        Self {
            version: VERSION,
            certificate_id,
            mode: FileMode::PRIVATE,
            owner: None,
            group: None,
            combined: false,
            exec: None,
            is_command_due: false,
        }
    }

    /// What is remembered in a directory, or `None` if there is nothing.
    pub fn load(directory: &OwnedFd) -> anyhow::Result<Option<Self>> {
        let Some((_, text)) = disk::read(directory, NAME)? else { return Ok(None) };
        let this: Self = serde_json::from_slice(&text).with_context(|| format!("{NAME} was not written by csrd"))?;
        if this.version != VERSION || CustomCertificateId::parse(&this.certificate_id).is_none() {
            bail!("{NAME} was written by another version of csrd");
        }
        Ok(Some(this))
    }

    /// Saves it in a directory, in place of what was there.
    pub fn save(&self, directory: &OwnedFd) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        disk::remove(directory, NEW)?;
        disk::sync(disk::create(directory, NEW, &text)?)?;
        disk::rename(directory, NEW, directory, NAME)?;
        disk::sync(directory)
    }

    /// The same for a certificate, with other options where they are given.
    pub fn with(&self, certificate_id: &str, options: &Options) -> Self {
        let exec = options.exec.clone().or_else(|| self.exec.clone()).filter(|command| !command.trim().is_empty());
        Self {
            version: VERSION,
            certificate_id: certificate_id.to_owned(),
            mode: options.mode.unwrap_or(self.mode),
            owner: options.owner.or(self.owner),
            group: options.group.or(self.group),
            combined: options.combined.unwrap_or(self.combined),
            is_command_due: self.is_command_due && exec.is_some(),
            exec,
        }
    }

    /// For the files.
    pub const fn files(&self) -> Access {
        Access { mode: self.mode.bits(), owner: self.owner, group: self.group }
    }

    /// For directories that csrd makes: whoever may read the files gets there. They stay its own; their owner could change what is in them.
    pub const fn directories(&self) -> Access {
        let group = if self.mode.bits() & READABLE_BY_GROUP != 0 { 0o050 } else { 0 };
        let owner = if self.owner.is_some() { 0o011 } else { 0 };
        Access { mode: 0o700 | group | owner, owner: None, group: self.group }
    }
}
