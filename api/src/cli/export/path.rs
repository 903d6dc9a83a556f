//! The way to a directory. Whoever could change a part of it could have private keys written where they like.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf, absolute},
};

use anyhow::{Context, anyhow, bail};
use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat},
    io::Errno,
    process::geteuid,
};

use super::disk;

/// The most links that are followed, as for the operating system.
const LINKS_MAX: u32 = 40;
const OPEN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Who can write to the directory cannot rename or remove what belongs to somebody else.
const STICKY: u32 = 0o1000;

/// The part of a path that exists, and the directories that are missing below.
#[derive(Debug)]
pub struct Way {
    end: OwnedFd,
    /// Where `end` is, without links.
    place: PathBuf,
    /// The directories on the way, `end` included, as they were found.
    passed: Vec<(PathBuf, Stat)>,
    missing: Vec<String>,
}

impl Way {
    /// Walks from the root and looks at each directory and link. One that somebody else than root and the own user owns or can change
    /// is refused; a link at the very end is too, unless `follow_last`. Makes nothing.
    pub fn find(path: &Path, follow_last: bool) -> anyhow::Result<Self> {
        let path = absolute(path).with_context(|| format!("--out: {}", path.display()))?;
        let mut way = Self { end: root()?, place: PathBuf::from("/"), passed: Vec::new(), missing: Vec::new() };
        way.pass(fstat(&way.end)?)?;
        let (mut names, mut links) = (names(&path), 0);
        while let Some(name) = names.pop_front() {
            let Some(target) = way.enter(&name)? else { continue };
            let link = way.place.join(&name);
            if names.is_empty() && !follow_last {
                bail!("--out: {} is a link: name the directory itself, or use --force to follow the link", path.display());
            }
            links += 1;
            if links > LINKS_MAX {
                bail!("--out: {} has too many links", path.display());
            }
            if target.is_absolute() {
                way.end = root().with_context(|| format!("--out: {} cannot be followed", link.display()))?;
                way.place = PathBuf::from("/");
            }
            for name in self::names(&target).into_iter().rev() {
                names.push_front(name);
            }
        }
        if way.place == Path::new("/") && way.missing.is_empty() {
            bail!("--out: {} is the root directory: use a directory for these files alone", path.display());
        }
        Ok(way)
    }

    /// The directories on the way, from the root on.
    pub fn passed(&self) -> &[(PathBuf, Stat)] {
        &self.passed
    }

    /// The directory, or `None` if it does not exist yet.
    pub fn directory(&self) -> anyhow::Result<Option<OwnedFd>> {
        if !self.missing.is_empty() {
            return Ok(None);
        }
        let opened = disk::open_dir(&self.end, ".").with_context(|| format!("--out: {} cannot be opened", self.place.display()))?;
        Ok(Some(opened))
    }

    /// Makes what is missing, for the own user alone, and opens the directory. Returns the directories that it made too, the last one last.
    pub fn make(mut self) -> anyhow::Result<(OwnedFd, Vec<OwnedFd>)> {
        let mut made = Vec::new();
        for name in std::mem::take(&mut self.missing) {
            let new =
                disk::make_dir(&self.end, &name).with_context(|| format!("--out: {} cannot be made", self.place.join(&name).display()))?;
            if let Some(new) = new {
                made.push(new);
                if let Ok(parent) = disk::open_dir(&self.end, ".") {
                    disk::sync(parent).with_context(|| format!("--out: {}", self.place.display()))?;
                }
            }
            // What somebody else made meanwhile has to be as good as what was there before.
            if self.enter(OsStr::new(&name))?.is_some() || !self.missing.is_empty() {
                bail!("--out: {} was changed at this moment: repeat the export", self.place.join(&name).display());
            }
        }
        let directory = self.directory()?.ok_or_else(|| anyhow!("--out: {} is missing", self.place.display()))?;
        Ok((directory, made))
    }

    /// Goes one directory on. Returns the target of a link instead of following it.
    fn enter(&mut self, name: &OsStr) -> anyhow::Result<Option<PathBuf>> {
        let place = if name == ".." { self.place.parent().unwrap_or(&self.place).to_owned() } else { self.place.join(name) };
        let shown = place.display();
        if !self.missing.is_empty() {
            let (Some(name), false) = (name.to_str(), name == "..") else {
                bail!("--out: {shown} does not exist, and csrd does not make it: make it, or use another name")
            };
            self.missing.push(name.to_owned());
            return Ok(None);
        }
        let opened = match openat(&self.end, name, OPEN, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => {
                let name =
                    name.to_str().with_context(|| format!("--out: {shown} is not UTF-8: make the directory, or use another name"))?;
                self.missing.push(name.to_owned());
                return Ok(None);
            }
            Err(error) => return Err(anyhow!(error).context(format!("--out: {shown} cannot be opened"))),
        };
        let stat = fstat(&opened).with_context(|| format!("--out: {shown} cannot be read"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                (self.end, self.place) = (opened, place);
                self.pass(stat)?;
                Ok(None)
            }
            FileType::Symlink => {
                check_owner(&stat, &place)?;
                let target = readlinkat(&opened, "", Vec::new()).with_context(|| format!("--out: {shown} cannot be read"))?;
                Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes()))))
            }
            _ => bail!("--out: {shown} is not a directory: use another name"),
        }
    }

    fn pass(&mut self, stat: Stat) -> anyhow::Result<()> {
        check(&stat, &self.place)?;
        self.passed.push((self.place.clone(), stat));
        Ok(())
    }
}

fn root() -> anyhow::Result<OwnedFd> {
    rustix::fs::open("/", OPEN | OFlags::DIRECTORY, Mode::empty()).context("--out: / cannot be opened")
}

/// Refuses a directory in which others than root and the own user could rename what is there.
pub fn check(stat: &Stat, place: &Path) -> anyhow::Result<()> {
    check_owner(stat, place)?;
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 && stat.st_mode & STICKY == 0 {
        let place = place.display();
        bail!("--out: others can change what is in {place}: run `chmod go-w {place}`, or use another directory");
    }
    Ok(())
}

fn check_owner(stat: &Stat, place: &Path) -> anyhow::Result<()> {
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        bail!(
            "--out: {} belongs to the user {}, who could change it: use a directory of your own or of root",
            place.display(),
            stat.st_uid
        );
    }
    Ok(())
}

/// The names on a path, without its root and `.`.
fn names(path: &Path) -> VecDeque<OsString> {
    let named = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::from_bytes(b"..").to_owned()),
        _ => None,
    };
    path.components().filter_map(named).collect()
}
