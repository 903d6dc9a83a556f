//! The files in a directory of exports: one directory for each version, and the link `current`, whose rename switches all files at once.

use std::{io, os::fd::OwnedFd, path::PathBuf};

use anyhow::Context;
use rustix::fs::{FileType, Stat, readlinkat};
use zeroize::Zeroizing;

use super::{
    disk::{self, Access},
    remembered::Remembered,
};

const CURRENT: &str = "current";
const CHAIN: &str = "fullchain.pem";
const KEY: &str = "privkey.pem";
const COMBINED: &str = "combined.pem";
const NAMES: [&str; 3] = [CHAIN, KEY, COMBINED];
/// A link that is renamed to where it belongs.
const NEW_LINK: &str = "link.new";

/// A private key and the chain for it, as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The private key.
    pub key: Zeroizing<Vec<u8>>,
    /// The chain, the leaf first.
    pub chain: Vec<u8>,
}

impl Pair {
    fn combined(&self) -> Zeroizing<Vec<u8>> {
        let mut both = Zeroizing::new(Vec::with_capacity(self.key.len() + self.chain.len()));
        both.extend_from_slice(&self.key);
        both.extend_from_slice(&self.chain);
        both
    }
}

/// A directory and its `.csrd`.
pub struct Layout<'a> {
    /// Where it is, for messages.
    pub shown: &'a PathBuf,
    /// The directory that the terminator reads.
    pub directory: &'a OwnedFd,
    /// Its `.csrd`.
    pub inner: &'a OwnedFd,
}

impl Layout<'_> {
    /// The pair that readers find, if files and links are exactly what an export would have made.
    pub fn pair(&self, how: &Remembered) -> Option<Pair> {
        let version = disk::open_dir(self.inner, &self.current()?.to_string()).ok()?;
        let read = |name| {
            let (stat, content) = disk::read(&version, name).ok()??;
            (self.leads_to_current(name) && fits(&stat, how.files())).then_some(content)
        };
        let pair = Pair { key: read(KEY)?, chain: read(CHAIN)?.to_vec() };
        let combined = if how.combined { Some(read(COMBINED)?) } else { None };
        let is_whole = match combined {
            Some(combined) => combined == pair.combined(),
            None => !self.leads_to_current(COMBINED),
        };
        is_whole.then_some(pair)
    }

    /// Whether there is nothing that [`Self::tidy`] would remove.
    pub fn is_tidy(&self) -> bool {
        self.surplus().is_ok_and(|surplus| surplus.is_empty())
    }

    /// Removes the versions that are neither current nor the one before: older ones, and what a killed export left.
    pub fn tidy(&self) -> anyhow::Result<()> {
        for version in self.surplus().with_context(|| self.cannot("be read", ".csrd"))? {
            let version = version.to_string();
            disk::remove_dir(self.inner, &version).with_context(|| self.cannot("be removed", &format!(".csrd/{version}")))?;
        }
        Ok(())
    }

    /// Puts a pair in place of the one that readers find. At each moment they find the one or the other.
    pub fn switch(&self, pair: &Pair, how: &Remembered) -> anyhow::Result<()> {
        self.tidy()?;
        disk::set_access(self.inner, how.directories()).with_context(|| self.cannot("be written", ".csrd"))?;
        let kept = if self.current().is_none() { self.keep_plain_files(how)? } else { None };
        let version = self.write(pair, how)?;
        if let Some(kept) = kept {
            self.set_current(kept)?;
        }
        for name in NAMES {
            if (name != COMBINED || how.combined) && !self.leads_to_current(name) {
                self.set_link(&format!("{CURRENT}/{name}"), name)?;
            }
        }
        disk::sync(self.directory).with_context(|| self.cannot("be written", ""))?;
        self.set_current(version)?;
        if !how.combined && self.leads_to_current(COMBINED) {
            disk::remove(self.directory, COMBINED).with_context(|| self.cannot("be removed", COMBINED))?;
        }
        self.tidy()
    }

    /// Writes a version of its own, which nobody reads yet.
    fn write(&self, pair: &Pair, how: &Remembered) -> anyhow::Result<u64> {
        let (number, version) = self.new_version(how)?;
        let mut files = vec![(KEY, pair.key.clone()), (CHAIN, Zeroizing::new(pair.chain.clone()))];
        if how.combined {
            files.push((COMBINED, pair.combined()));
        }
        for (name, content) in files {
            disk::create(&version, name, &content, how.files()).with_context(|| self.cannot("be written", name))?;
        }
        self.sync_version(&version)?;
        Ok(number)
    }

    /// A version of the files that lie in the directory itself, as exports before this layout, or somebody else, wrote them: once `current`
    /// leads there, one of them after the other can become a link, and readers see no change.
    fn keep_plain_files(&self, how: &Remembered) -> anyhow::Result<Option<u64>> {
        let mut kept = None;
        for name in NAMES {
            let Some((_, kind)) = disk::find(self.directory, name).with_context(|| self.cannot("be read", name))? else { continue };
            if self.leads_to_current(name) || !matches!(kind, FileType::RegularFile | FileType::Symlink) {
                continue;
            }
            if kept.is_none() {
                kept = Some(self.new_version(how)?);
            }
            let Some((_, version)) = &kept else { continue };
            if kind == FileType::RegularFile {
                disk::link(self.directory, name, version, name).with_context(|| self.cannot("be kept", name))?;
            } else {
                // Somebody else's link: it is not followed, and leads from there to where it leads from here.
                let target = readlinkat(self.directory, name, Vec::new()).with_context(|| self.cannot("be read", name))?.into_bytes();
                let target = if target.starts_with(b"/") { target } else { [b"../../", target.as_slice()].concat() };
                disk::symlink(&target, version, name).with_context(|| self.cannot("be kept", name))?;
            }
        }
        let Some((number, version)) = kept else { return Ok(None) };
        self.sync_version(&version)?;
        Ok(Some(number))
    }

    fn new_version(&self, how: &Remembered) -> anyhow::Result<(u64, OwnedFd)> {
        let last = self.versions().with_context(|| self.cannot("be read", ".csrd"))?.into_iter().max().unwrap_or_default();
        let (number, name) = (last + 1, (last + 1).to_string());
        disk::make_dir(self.inner, &name, how.directories()).with_context(|| self.cannot("be written", ".csrd"))?;
        Ok((number, disk::open_dir(self.inner, &name).with_context(|| self.cannot("be read", ".csrd"))?))
    }

    fn sync_version(&self, version: &OwnedFd) -> anyhow::Result<()> {
        disk::sync(version).and_then(|()| disk::sync(self.inner)).with_context(|| self.cannot("be written", ".csrd"))
    }

    fn set_current(&self, version: u64) -> anyhow::Result<()> {
        self.set_link(&format!(".csrd/{version}"), CURRENT)?;
        disk::sync(self.directory).with_context(|| self.cannot("be written", CURRENT))
    }

    /// Makes a link, in place of what has this name.
    fn set_link(&self, target: &str, name: &str) -> anyhow::Result<()> {
        disk::remove(self.inner, NEW_LINK)
            .and_then(|()| disk::symlink(target.as_bytes(), self.inner, NEW_LINK))
            .and_then(|()| disk::rename(self.inner, NEW_LINK, self.directory, name))
            .with_context(|| self.cannot("be written", name))
    }

    fn leads_to_current(&self, name: &str) -> bool {
        self.target(name).is_some_and(|target| target == format!("{CURRENT}/{name}"))
    }

    fn target(&self, name: &str) -> Option<String> {
        readlinkat(self.directory, name, Vec::new()).ok()?.into_string().ok()
    }

    /// The version that readers find.
    fn current(&self) -> Option<u64> {
        let version = self.target(CURRENT)?.strip_prefix(".csrd/")?.parse().ok()?;
        self.versions().ok()?.contains(&version).then_some(version)
    }

    /// The versions, complete or not. Their numbers only ever grow.
    fn versions(&self) -> io::Result<Vec<u64>> {
        let numbers =
            disk::names(self.inner)?.into_iter().filter_map(|name| name.parse::<u64>().ok().filter(|number| number.to_string() == name));
        Ok(numbers.filter(|number| *number < u64::MAX).collect())
    }

    fn surplus(&self) -> io::Result<Vec<u64>> {
        let (mut versions, current) = (self.versions()?, self.current());
        let before = versions.iter().filter(|version| current.is_some_and(|current| **version < current)).max().copied();
        versions.retain(|version| Some(*version) != current && Some(*version) != before);
        Ok(versions)
    }

    fn cannot(&self, what: &str, name: &str) -> String {
        format!("{} cannot {what}: repeat the export once that is put right", self.shown.join(name).display())
    }
}

fn fits(stat: &Stat, access: Access) -> bool {
    stat.st_mode & 0o7777 == access.mode
        && access.owner.is_none_or(|owner| owner == stat.st_uid)
        && access.group.is_none_or(|group| group == stat.st_gid)
}

/// Whether a directory has files that an export would have to take for somebody else's.
pub fn has_files(directory: &OwnedFd) -> io::Result<bool> {
    Ok(disk::names(directory)?.iter().any(|name| name == CURRENT || name.as_bytes().ends_with(b".pem")))
}
