//! What an export was told, for the next one: `DIR/.csrd/export.json`.

use std::{io, os::fd::OwnedFd};

use anyhow::{Context, bail};
use clap::Args;
use nix::unistd::{Group, User};
use serde::{Deserialize, Serialize};
use shared::ids::CustomCertificateId;

use super::disk::{self, Access};

const NAME: &str = "export.json";
const NEW: &str = "export.json.new";
const VERSION: u32 = 1;
const READABLE_BY_GROUP: u32 = 0o040;

/// How the files are written. What is not given is as in the export before.
#[derive(Args, Default)]
pub struct Options {
    /// Write combined.pem too, the private key and then the chain, as some terminators want it; `--combined=false` ends that
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    combined: Option<bool>,
    /// The mode of the files, octal; 0600 in the first export. A private key that everyone can read is refused
    #[arg(long, value_name = "MODE")]
    mode: Option<FileMode>,
    /// The owner of the files, by name or number
    #[arg(long, value_name = "USER", value_parser = user)]
    owner: Option<u32>,
    /// The group of the files, by name or number
    #[arg(long, value_name = "GROUP", value_parser = group)]
    group: Option<u32>,
    /// Run this by `sh -c` when the new files are in place, and only if something changed; `--exec ''` ends that
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
}

fn user(text: &str) -> Result<u32, String> {
    match (User::from_name(text), text.parse()) {
        (Ok(Some(user)), _) => Ok(user.uid.as_raw()),
        (_, Ok(number)) if number != u32::MAX => Ok(number),
        _ => Err("there is no such user".to_owned()),
    }
}

fn group(text: &str) -> Result<u32, String> {
    match (Group::from_name(text), text.parse()) {
        (Ok(Some(group)), _) => Ok(group.gid.as_raw()),
        (_, Ok(number)) if number != u32::MAX => Ok(number),
        _ => Err("there is no such group".to_owned()),
    }
}

/// The permission bits of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl std::str::FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if is_octal && mode & 0o007 != 0 => {
                Err("everyone could use the private key: the last digit must be 0, as in 0640".into())
            }
            Ok(mode) if is_octal && (0o400..=0o777).contains(&mode) => Ok(Self(mode)),
            _ => Err("write an octal mode from 0400 to 0770, such as 0640".to_owned()),
        }
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        format!("{:04o}", mode.0)
    }
}

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
    /// Whether something changed and the command did not run to its end since.
    pub is_command_due: bool,
}

impl Remembered {
    /// For the first export of a certificate.
    pub fn new(certificate_id: &str) -> Self {
        let certificate_id = certificate_id.to_owned();
        Self {
            version: VERSION,
            certificate_id,
            mode: FileMode(0o600),
            owner: None,
            group: None,
            combined: false,
            exec: None,
            is_command_due: false,
        }
    }

    /// What is remembered in a directory `.csrd`, or `None` if no export came that far.
    pub fn load(inner: &OwnedFd) -> anyhow::Result<Option<Self>> {
        let Some((_, text)) = disk::read(inner, NAME)? else { return Ok(None) };
        let this: Self = serde_json::from_slice(&text).with_context(|| format!("{NAME} was not written by csrd"))?;
        if this.version != VERSION || CustomCertificateId::parse(&this.certificate_id).is_none() {
            bail!("{NAME} was written by another version of csrd");
        }
        Ok(Some(this))
    }

    /// Saves it, in place of what was there.
    pub fn save(&self, inner: &OwnedFd) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        disk::remove(inner, NEW)?;
        disk::create(inner, NEW, &text, Access { mode: 0o600, owner: None, group: None })?;
        disk::rename(inner, NEW, inner, NAME)?;
        disk::sync(inner)
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
        Access { mode: self.mode.0, owner: self.owner, group: self.group }
    }

    /// For directories that csrd makes: whoever may read the files gets there. They stay its own; their owner could change what is in them.
    pub const fn directories(&self) -> Access {
        let group = if self.mode.0 & READABLE_BY_GROUP != 0 { 0o050 } else { 0 };
        let owner = if self.owner.is_some() { 0o011 } else { 0 };
        Access { mode: 0o700 | group | owner, owner: None, group: self.group }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_lets_not_everyone_at_the_private_key() {
        for (text, mode) in [("0600", 0o600), ("640", 0o640), ("0400", 0o400), ("0770", 0o770)] {
            assert_eq!(text.parse(), Ok(FileMode(mode)));
        }
        for text in ["", "0", "0604", "0644", "0601", "777", "0200", "0040", "4600", "1600", "+600", "0o600", "-600", "06000", "rw", "0680"]
        {
            assert!(text.parse::<FileMode>().is_err(), "{text}");
        }
        assert!("0644".parse::<FileMode>().unwrap_err().contains("everyone"));
    }

    #[test]
    fn users_and_groups_have_names_or_numbers() {
        assert_eq!((user("root"), group("root")), (Ok(0), Ok(0)));
        assert_eq!((user("4711"), group("4712")), (Ok(4711), Ok(4712)));
        for text in ["", "no such name", "-1", "4294967295", "99999999999"] {
            assert!(user(text).is_err() && group(text).is_err(), "{text}");
        }
    }
}
