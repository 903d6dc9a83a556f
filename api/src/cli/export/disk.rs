//! Every change that an export makes on disk, one function each: a test lets any of them be the last one.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use anyhow::Context;
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fchown, fstat, fsync, linkat, mkdirat, openat, renameat, statat, symlinkat,
        unlinkat,
    },
    io::Errno,
    process::{Gid, Uid},
};
use zeroize::Zeroizing;

/// The most that is read of a file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// What is made in such a directory gets the directory's group.
pub const SET_GROUP_ID: u32 = 0o2000;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Who owns a file, and who may read it.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// The permission bits.
    pub mode: u32,
    /// The user, or `None` for whoever csrd runs as.
    pub owner: Option<u32>,
    /// The group, or `None` for the one that the operating system chooses.
    pub group: Option<u32>,
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "a test lets it fail")]
const fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use faults::step;

/// Makes a directory for the own user alone, and opens it, or returns `None` if something of this name is there.
pub fn make_dir(at: impl AsFd, name: &str) -> io::Result<Option<OwnedFd>> {
    step()?;
    match mkdirat(at.as_fd(), name, Mode::RWXU) {
        Ok(()) => open_dir(at, name).map(Some),
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file or a directory the permissions and the owners that it should have. A directory keeps the bit by which what is made in it
/// gets its group, which the operating system takes away where somebody outside of the group sets the permissions.
pub fn give(file: impl AsFd, access: Access) -> anyhow::Result<()> {
    step()?;
    let refused = |option: &str, whom: &str, number: u32| {
        format!(
            "{option}: the operating system does not let csrd give a file to the {whom} {number}: run csrd as root, or name another {whom}"
        )
    };
    if let Some(owner) = access.owner {
        fchown(&file, Some(Uid::from_raw(owner)), None).with_context(|| refused("--owner", "user", owner))?;
    }
    if let Some(group) = access.group {
        fchown(&file, None, Some(Gid::from_raw(group))).with_context(|| refused("--group", "group", group))?;
    }
    let mode = fstat(&file)?.st_mode;
    if mode & 0o777 == access.mode {
        return Ok(());
    }
    fchmod(&file, Mode::from_raw_mode(access.mode | mode & SET_GROUP_ID)).context("--mode: the operating system does not let csrd set it")
}

/// Opens a directory, but no link to one.
pub fn open_dir(at: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(at, name, DIRECTORY, Mode::empty())?)
}

/// Makes a file with this content, for the own user alone.
pub fn create(at: impl AsFd, name: &str, content: &[u8]) -> io::Result<File> {
    step()?;
    let mut file = File::from(openat(at, name, NEW, Mode::RUSR | Mode::WUSR)?);
    file.write_all(content)?;
    Ok(file)
}

/// Opens an empty file that is there to be seen or locked; it is made where it is missing.
pub fn touch(at: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    step()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::RUSR | Mode::WUSR)?)
}

/// Gives a file a second name; refuses directories, and names that are taken.
pub fn link(from: impl AsFd, name: &str, to: impl AsFd, new: &str) -> io::Result<()> {
    step()?;
    Ok(linkat(from, name, to, new, AtFlags::empty())?)
}

/// Makes a symbolic link.
pub fn symlink(target: &[u8], at: impl AsFd, name: &str) -> io::Result<()> {
    step()?;
    Ok(symlinkat(target, at, name)?)
}

/// Renames, over whatever file or link has the new name.
pub fn rename(from: impl AsFd, name: &str, to: impl AsFd, new: &str) -> io::Result<()> {
    step()?;
    Ok(renameat(from, name, to, new)?)
}

/// Removes a file or a link, which may be missing; refuses directories.
pub fn remove(at: impl AsFd, name: &str) -> io::Result<()> {
    step()?;
    match unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a directory with the files in it.
pub fn remove_dir(at: impl AsFd, name: &str) -> io::Result<()> {
    let directory = open_dir(at.as_fd(), name)?;
    for file in names(&directory)? {
        remove(&directory, &file)?;
    }
    step()?;
    Ok(unlinkat(at, name, AtFlags::REMOVEDIR)?)
}

/// Makes sure that a file, or the names in a directory, are on disk.
pub fn sync(file: impl AsFd) -> io::Result<()> {
    step()?;
    Ok(fsync(file)?)
}

/// The names in a directory, but for those that are not UTF-8: no export makes such ones.
pub fn names(directory: impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// What has this name, or `None` if nothing does. Links are not followed.
pub fn find(at: impl AsFd, name: &str) -> io::Result<Option<(Stat, FileType)>> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((stat, FileType::from_raw_mode(stat.st_mode)))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads a regular file of at most 1 MiB, or returns `None` if there is nothing of this name. Links are not followed.
pub fn read(at: impl AsFd, name: &str) -> io::Result<Option<(Stat, Zeroizing<Vec<u8>>)>> {
    let file = match openat(at, name, READ, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(io::Error::other("it is a link")),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a regular file"));
    }
    let size = u64::try_from(stat.st_size).unwrap_or_default().min(MAX_BYTES);
    // As large as the file from the start: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1));
    File::from(file).take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Some((stat, bytes)))
}

/// An export that ends at any step, as one does that is killed.
#[cfg(test)]
pub(super) mod faults {
    use std::{cell::RefCell, io};

    thread_local! {
        static BEFORE_STEP: RefCell<Option<Box<dyn FnMut() -> bool>>> = const { RefCell::new(None) };
    }

    /// Runs a closure before each step of this thread; from the first time on that it returns false, no step is done.
    pub fn before_each_step<T>(mut goes_on: impl FnMut() -> bool + 'static, run: impl FnOnce() -> T) -> T {
        let mut is_killed = false;
        BEFORE_STEP.set(Some(Box::new(move || {
            is_killed = is_killed || !goes_on();
            !is_killed
        })));
        let done = run();
        BEFORE_STEP.set(None);
        done
    }

    pub fn step() -> io::Result<()> {
        let goes_on = BEFORE_STEP.with_borrow_mut(|before| before.as_mut().is_none_or(|before| before()));
        if goes_on { Ok(()) } else { Err(io::Error::other("killed by a test")) }
    }
}
