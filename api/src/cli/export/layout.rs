//! The files in a directory of exports: one directory for each version, and the link `current`, whose rename switches all files at once.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fs::{AtFlags, FileType, Stat, fstat, readlinkat, statat},
    process::{getegid, geteuid},
};
use zeroize::Zeroizing;

use super::{
    INNER,
    disk::{self, Access},
    files::{BUNDLE, CHAIN, COMBINED, Files, KEY, NAMES, Pair},
    remembered::{self, Remembered},
};

const CURRENT: &str = "current";
/// There if csrd made the directory, which it opens for whoever reads the files, as it does not with one of somebody else's.
const MADE: &str = "made";
const GROUP_BITS: u32 = 0o070;
/// A link that is renamed to where it belongs.
const NEW_LINK: &str = "link.new";

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
    /// What is remembered of the files that readers find, or `None` if no export came that far.
    pub fn remembered(&self) -> anyhow::Result<Option<Remembered>> {
        if let Some(version) = self.open_current()
            && let Some(remembered) = Remembered::load(&version)?
        {
            return Ok(Some(remembered));
        }
        Remembered::load(self.inner)
    }

    /// Brings what is remembered to where it stays. The rename needs no space on the disk.
    pub fn settle(&self) -> anyhow::Result<()> {
        if let Some(version) = self.open_current()
            && disk::find(&version, remembered::NAME).with_context(|| self.cannot("be read", INNER))?.is_some()
        {
            disk::rename(&version, remembered::NAME, self.inner, remembered::NAME)
                .and_then(|()| disk::sync(self.inner))
                .with_context(|| self.cannot("be written", INNER))?;
        }
        Ok(())
    }

    /// The files that readers find, if they, their links and their directory are exactly what an export would have made.
    pub fn files(&self, how: &Remembered) -> Option<Files> {
        let version = self.open_current()?;
        let made = fstat(&version).ok()?;
        if !fits(&made, how.directories(), &fstat(self.inner).ok()?) {
            return None;
        }
        let read = |name| {
            let (stat, content) = disk::read(&version, name).ok()??;
            (self.leads_to_current(name) && fits(&stat, how.files(), &made)).then_some(content)
        };
        let pair = Pair { key: read(KEY)?, chain: read(CHAIN)?.to_vec() };
        let combined = if how.combined { Some(read(COMBINED)?) } else { None };
        let is_whole = match combined {
            Some(combined) => combined == pair.combined(),
            None => !self.leads_to_current(COMBINED),
        };
        let mut bundle = Vec::new();
        for name in BUNDLE {
            match (self.leads_to_current(name), disk::find(&version, name).ok()?) {
                (true, Some(_)) => bundle.push((name, read(name)?)),
                (false, None) => {}
                (true, None) | (false, Some(_)) => return None,
            }
        }
        is_whole.then_some(Files { pair, bundle })
    }

    /// Whether there is nothing that [`Self::tidy`] or [`Self::open`] would change.
    pub fn is_tidy(&self, how: &Remembered) -> bool {
        self.surplus().is_ok_and(|surplus| surplus.is_empty()) && self.closed(how).is_ok_and(|closed| closed.is_empty())
    }

    /// Removes the versions that are neither current nor the one before: older ones, and what a killed export left.
    pub fn tidy(&self) -> anyhow::Result<()> {
        for version in self.surplus().with_context(|| self.cannot("be read", INNER))? {
            let version = version.to_string();
            disk::remove_dir(self.inner, &version).with_context(|| self.cannot("be removed", &format!("{INNER}/{version}")))?;
        }
        Ok(())
    }

    /// Lets whoever may read the files into the directories that csrd made.
    pub fn open(&self, how: &Remembered) -> anyhow::Result<()> {
        for directory in self.closed(how).with_context(|| self.cannot("be read", ""))? {
            open(directory, how)?;
        }
        Ok(())
    }

    /// Remembers that csrd made the directory.
    pub fn set_made(&self) -> io::Result<()> {
        disk::touch(self.inner, MADE).map(drop)
    }

    fn closed(&self, how: &Remembered) -> io::Result<Vec<&OwnedFd>> {
        let access = how.directories();
        let outer = if disk::find(self.inner, MADE)?.is_some() { Some(self.directory) } else { None };
        let mut closed = Vec::new();
        for directory in outer.into_iter().chain([self.inner]) {
            let stat = fstat(directory)?;
            let is_for_another_group = access.mode & GROUP_BITS != 0 && stat.st_gid != group(access, &stat);
            if stat.st_mode & access.mode != access.mode || is_for_another_group {
                closed.push(directory);
            }
        }
        Ok(closed)
    }

    /// Puts files, and what is remembered of them, in place of what readers find. At each moment they find the ones or the others.
    pub fn switch(&self, files: &Files, how: &Remembered) -> anyhow::Result<()> {
        self.tidy()?;
        let kept = if self.current().is_none() { self.keep_plain_files(how)? } else { None };
        let (version, written) = (self.write(files, how)?, files.names(how));
        if let Some(kept) = kept {
            self.set_current(kept)?;
        }
        for name in &written {
            if !self.leads_to_current(name) {
                self.set_link(&format!("{CURRENT}/{name}"), name)?;
            }
        }
        disk::sync(self.directory).with_context(|| self.cannot("be written", ""))?;
        self.set_current(version)?;
        self.settle()?;
        for name in NAMES.into_iter().filter(|name| !written.contains(name) && self.leads_to_current(name)) {
            disk::remove(self.directory, name).with_context(|| self.cannot("be removed", name))?;
        }
        self.tidy()
    }

    /// Writes a version of its own, which nobody reads yet.
    fn write(&self, Files { pair, bundle }: &Files, how: &Remembered) -> anyhow::Result<u64> {
        let (number, version) = self.new_version(how)?;
        let mut files = vec![(KEY, pair.key.clone()), (CHAIN, Zeroizing::new(pair.chain.clone()))];
        if how.combined {
            files.push((COMBINED, pair.combined()));
        }
        files.extend(bundle.iter().cloned());
        for (name, content) in files {
            let file = disk::create(&version, name, &content).with_context(|| self.cannot("be written", name))?;
            disk::give(&file, how.files())?;
            disk::sync(&file).with_context(|| self.cannot("be written", name))?;
        }
        how.save(&version).with_context(|| self.cannot("be written", INNER))?;
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
        let last = self.versions().with_context(|| self.cannot("be read", INNER))?.into_iter().max().unwrap_or_default();
        let number = last + 1;
        let version = disk::make_dir(self.inner, &number.to_string())
            .and_then(|made| made.ok_or_else(|| io::ErrorKind::AlreadyExists.into()))
            .with_context(|| self.cannot("be written", INNER))?;
        disk::give(&version, how.directories())?;
        Ok((number, version))
    }

    fn sync_version(&self, version: &OwnedFd) -> anyhow::Result<()> {
        disk::sync(version).and_then(|()| disk::sync(self.inner)).with_context(|| self.cannot("be written", INNER))
    }

    fn set_current(&self, version: u64) -> anyhow::Result<()> {
        self.set_link(&format!("{INNER}/{version}"), CURRENT)?;
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

    fn open_current(&self) -> Option<OwnedFd> {
        disk::open_dir(self.inner, &self.current()?.to_string()).ok()
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

/// Whether something is as csrd makes it, who runs as the own user and group, in the directory around it.
fn fits(stat: &Stat, access: Access, around: &Stat) -> bool {
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let inherited = if is_directory { disk::SET_GROUP_ID } else { 0 };
    stat.st_mode & 0o7777 & !inherited == access.mode
        && stat.st_uid == access.owner.unwrap_or(geteuid().as_raw())
        && stat.st_gid == group(access, around)
}

/// The group of what is in a directory that it belongs to as well.
fn group(access: Access, directory: &Stat) -> u32 {
    let hands_on = directory.st_mode & disk::SET_GROUP_ID != 0;
    access.group.unwrap_or_else(|| if hands_on { directory.st_gid } else { getegid().as_raw() })
}

/// Lets whoever may read the files into a directory, and keeps nobody out who was let in before.
pub fn open(directory: &OwnedFd, how: &Remembered) -> anyhow::Result<()> {
    let (access, stat) = (how.directories(), fstat(directory)?);
    disk::give(directory, Access { mode: access.mode | stat.st_mode & 0o777, owner: None, group: Some(group(access, &stat)) })
}

/// Refuses a directory that has one of its own where an export would put a file; `inner` is its `.csrd`, if there is one.
pub fn check(shown: &Path, directory: &OwnedFd, inner: Option<&OwnedFd>, how: &Remembered) -> anyhow::Result<()> {
    let outer = NAMES.into_iter().filter(|name| how.combined || matches!(*name, CHAIN | KEY)).chain([CURRENT]);
    let below = inner.into_iter().flat_map(|inner| [NEW_LINK, remembered::NAME, remembered::NEW].map(|name| (inner, name, INNER)));
    for (at, name, below) in outer.map(|name| (directory, name, "")).chain(below) {
        let shown = shown.join(below).join(name);
        let found = disk::find(at, name).with_context(|| format!("--out: {} cannot be read", shown.display()))?;
        if found.is_some_and(|(_, kind)| kind == FileType::Directory) {
            bail!("--out: {} is a directory, where a file belongs: move it away, or use another directory", shown.display());
        }
    }
    Ok(())
}

/// The private key that readers find.
pub fn key(directory: &OwnedFd) -> io::Result<Stat> {
    Ok(statat(directory, format!("{CURRENT}/{KEY}"), AtFlags::empty())?)
}

/// Whether a directory has files that an export would have to take for somebody else's. Links that a killed first export left are its own:
/// nothing has ever been read through them.
pub fn has_files(directory: &OwnedFd) -> io::Result<bool> {
    let leads_to_current =
        |name: &str| readlinkat(directory, name, Vec::new()).is_ok_and(|to| to.to_bytes() == format!("{CURRENT}/{name}").as_bytes());
    let is_pem = |name: &str| name.as_bytes().ends_with(b".pem") || BUNDLE.contains(&name);
    Ok(disk::names(directory)?.iter().any(|name| name == CURRENT || is_pem(name) && !leads_to_current(name)))
}
