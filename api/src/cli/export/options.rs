//! How the operator wants the files.

use clap::Args;
use nix::unistd::{Group, User};
use serde::{Deserialize, Serialize};

/// What is left of a mode that an older csrd took: the owner may read and write a private key, the group may read it.
const SAFE: u32 = 0o640;

/// How the files are written. What is not given is as in the export before.
#[derive(Args, Default)]
pub struct Options {
    /// Write combined.pem too, the private key and then the chain, as some terminators want it; and, of a certificate of a set, such a file for
    /// each of the set that has one: site.pem.rsa, site.pem.ecdsa. `--combined=false` ends that
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub(super) combined: Option<bool>,
    /// The mode of the files: 0600, 0640, 0400 or 0440; 0600 in the first export
    #[arg(long, value_name = "MODE")]
    pub(super) mode: Option<FileMode>,
    /// The owner of the files, by name or number
    #[arg(long, value_name = "USER", value_parser = user)]
    pub(super) owner: Option<u32>,
    /// The group of the files, by name or number
    #[arg(long, value_name = "GROUP", value_parser = group)]
    pub(super) group: Option<u32>,
    /// Run this by `sh -c` when new files are in place, and again in each export until it succeeds; `--exec ''` ends that
    #[arg(long, value_name = "COMMAND")]
    pub(super) exec: Option<String>,
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
pub(super) struct FileMode(u32);

impl FileMode {
    /// For the owner alone.
    pub const PRIVATE: Self = Self(0o600);

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl std::str::FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let why = match octal(text) {
            Some(mode @ (0o600 | 0o640 | 0o400 | 0o440)) => return Ok(Self(mode)),
            Some(mode) if mode & 0o007 != 0 => "everyone could use the private key",
            Some(mode) if mode & 0o020 != 0 => "the group could change the private key",
            _ => "no such mode is for a private key",
        };
        Err(format!("{why}: use 0640 where a group has to read it, or else 0600"))
    }
}

/// What is remembered: an older csrd took more modes than this one does.
impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        octal(&text).map(|mode| mode & SAFE).filter(|mode| mode & 0o400 != 0).map(Self).ok_or_else(|| format!("{text} is not a mode"))
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        format!("{:04o}", mode.0)
    }
}

fn octal(text: &str) -> Option<u32> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    u32::from_str_radix(text, 8).ok().filter(|_| is_octal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_lets_nobody_but_the_owner_write_the_private_key_and_not_everyone_read_it() {
        for (text, mode) in [("0600", 0o600), ("640", 0o640), ("0400", 0o400), ("0440", 0o440)] {
            assert_eq!(text.parse(), Ok(FileMode(mode)));
        }
        for bits in 0..=0o7777_u32 {
            let text = format!("{bits:04o}");
            assert_eq!(text.parse::<FileMode>().is_ok(), [0o600, 0o640, 0o400, 0o440].contains(&bits), "{text}");
        }
        for text in ["", "0", "+600", "0o600", "-600", "06000", "rw", "0680", " 0600", "0600 "] {
            assert!(text.parse::<FileMode>().is_err(), "{text}");
        }
        assert!("0644".parse::<FileMode>().unwrap_err().contains("everyone"));
        assert!("0660".parse::<FileMode>().unwrap_err().contains("the group"));
    }

    #[test]
    fn a_mode_that_an_older_csrd_took_is_narrowed() {
        for (text, mode) in [("0660", 0o640), ("0770", 0o640), ("0620", 0o600), ("0500", 0o400)] {
            assert_eq!(FileMode::try_from(text.to_owned()), Ok(FileMode(mode)));
        }
        for text in ["0200", "rw", "", "0070"] {
            assert!(FileMode::try_from(text.to_owned()).is_err(), "{text}");
        }
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
