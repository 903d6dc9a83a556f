//! The directory that a TLS terminator reads: a certificate, its private key, and whose they are.
//!
//! `DIR/.csrd/N/` holds the files of a version and never changes; `DIR/current` is a link to one of them, and `DIR/fullchain.pem` and its
//! like are links through `current`. What was begun and not finished is repaired by doing it again.

pub mod command;
mod disk;
mod files;
mod layout;
#[cfg(test)]
mod layout_tests;
mod options;
mod path;
mod readers;
mod remembered;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rustix::{
    fs::{FileType, FlockOperation, flock, fstat},
    io::Errno,
};
use shared::ids::CustomCertificateId;
use tokio::time::{Instant, sleep};

pub use files::{ECDSA, Files, Pair, RSA};
use layout::Layout;
pub use options::Options;
use path::Way;
use remembered::Remembered;

/// What belongs to csrd in the directory. In the layout before this it was a file with the certificate's ID.
const INNER: &str = ".csrd";
/// The file of that layout, until there is something in its place.
const OLD_OWNER: &str = ".csrd.old";
/// What an export left that was killed in that layout.
const OLD_TEMPORARY: &str = ".csrd.tmp";
const LOCK: &str = "lock";
/// How long an export waits for another one, and how often it looks.
const LOCK_TIME: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where to, and for which certificate. Looking at it changes nothing.
pub struct Place<'a> {
    shown: PathBuf,
    way: Way,
    certificate_id: &'a str,
    options: &'a Options,
    force: bool,
}

impl<'a> Place<'a> {
    /// Refuses a path that others could change, a directory of another certificate, one with files that no export wrote, and one with
    /// something that no export can replace.
    pub fn find(path: &Path, certificate_id: &'a str, options: &'a Options, force: bool) -> anyhow::Result<Self> {
        // Without `/` and `/.` at its end.
        let shown = path.components().collect();
        let this = Self { way: Way::find(path, force)?, shown, certificate_id, options, force };
        if let Some(directory) = this.way.directory()? {
            this.check(&directory)?;
        }
        Ok(this)
    }

    /// Whether the export writes combined.pem, and what else of a set belongs beside it.
    pub fn is_combined(&self) -> anyhow::Result<bool> {
        match self.way.directory()? {
            Some(directory) => Ok(self.remembered(&directory)?.combined),
            None => Ok(Remembered::new(self.certificate_id).with(self.certificate_id, self.options).combined),
        }
    }

    /// The files that readers find, if an export of them would change nothing.
    pub fn unchanged_files(&self) -> anyhow::Result<Option<Files>> {
        let Some(directory) = self.way.directory()? else { return Ok(None) };
        let how = self.remembered(&directory)?;
        let Some(inner) = self.open_inner(&directory)? else { return Ok(None) };
        let layout = Layout { shown: &self.shown, directory: &directory, inner: &inner };
        let is_done = is_saved(&how, &layout) && !how.is_command_due && layout.is_tidy(&how);
        Ok(layout.files(&how).filter(|_| is_done))
    }

    /// Makes the directory where it is missing, and keeps other exports out.
    pub async fn claim(self) -> anyhow::Result<Claimed> {
        let (directory, made) = match self.way.directory()? {
            Some(directory) => (directory, Vec::new()),
            None => Way::find(&self.shown, self.force)?.make()?,
        };
        // Once more: it may be there, and somebody's, by now.
        self.check(&directory)?;
        let inner =
            self.make_inner(&directory).with_context(|| format!("--out: {} cannot be written", self.shown.join(INNER).display()))?;
        let lock = disk::touch(&inner, LOCK).with_context(|| format!("--out: {}/{INNER}/{LOCK} cannot be opened", self.shown.display()))?;
        if !made.is_empty() {
            let layout = Layout { shown: &self.shown, directory: &directory, inner: &inner };
            layout.set_made().with_context(|| format!("--out: {} cannot be written", self.shown.join(INNER).display()))?;
        }
        let until = Instant::now() + LOCK_TIME;
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(anyhow!(error).context(format!("--out: {} cannot be locked", self.shown.display())));
            }
            if Instant::now() > until {
                bail!("--out: another export writes to {}: repeat this one when that has ended", self.shown.display());
            }
            sleep(LOCK_PAUSE).await;
        }
        let how = self.check(&directory)?;
        Ok(Claimed { shown: self.shown, directory, made, inner, how, _lock: lock })
    }

    /// What is remembered, of a directory to which the export can be written.
    fn check(&self, directory: &OwnedFd) -> anyhow::Result<Remembered> {
        let how = self.remembered(directory)?;
        layout::check(&self.shown, directory, self.open_inner(directory)?.as_ref(), &how)?;
        Ok(how)
    }

    /// What an export left there, with the options of this one. Refuses what is not for this certificate.
    fn remembered(&self, directory: &OwnedFd) -> anyhow::Result<Remembered> {
        let (name, new) = (self.shown.display(), Remembered::new(self.certificate_id));
        let before = match self.left_by_export(directory) {
            Err(error) if !self.force => return Err(error),
            Ok(None) if !self.force && layout::has_files(directory)? => {
                bail!("--out: {name} has PEM files that no export wrote: use another directory, or --force")
            }
            Ok(Some(before)) if !self.force && before.certificate_id != self.certificate_id => {
                bail!("--out: {name} belongs to the custom certificate {}: use another directory, or --force", before.certificate_id)
            }
            before => before.unwrap_or_default(),
        };
        Ok(before.as_ref().unwrap_or(&new).with(self.certificate_id, self.options))
    }

    fn left_by_export(&self, directory: &OwnedFd) -> anyhow::Result<Option<Remembered>> {
        let cannot =
            |name: &str| format!("--out: {} cannot be understood: use another directory, or --force", self.shown.join(name).display());
        if let Some(inner) = self.open_inner(directory)?
            && let layout = (Layout { shown: &self.shown, directory, inner: &inner })
            && let Some(remembered) = layout.remembered().with_context(|| cannot(INNER))?
        {
            return Ok(Some(remembered));
        }
        for name in [INNER, OLD_OWNER] {
            let is_directory = disk::find(directory, name)?.is_some_and(|(_, kind)| kind == FileType::Directory);
            if !is_directory && let Some((_, text)) = disk::read(directory, name).with_context(|| cannot(name))? {
                let id = std::str::from_utf8(&text).ok().map(str::trim_end).filter(|id| CustomCertificateId::parse(id).is_some());
                let id = id.context("it has no custom certificate's ID").with_context(|| cannot(name))?;
                return Ok(Some(Remembered::new(id)));
            }
        }
        Ok(None)
    }

    /// The directory `.csrd`, unless others than root and the own user could have written what is in it.
    fn open_inner(&self, directory: &OwnedFd) -> anyhow::Result<Option<OwnedFd>> {
        let path = self.shown.join(INNER);
        let cannot = || format!("--out: {} cannot be opened", path.display());
        match disk::find(directory, INNER).with_context(cannot)? {
            Some((_, FileType::Directory)) => {}
            _ => return Ok(None),
        }
        let inner = disk::open_dir(directory, INNER).with_context(cannot)?;
        path::check(&fstat(&inner).with_context(cannot)?, &path)?;
        Ok(Some(inner))
    }

    /// Makes `.csrd`; a file of the layout before keeps its content under another name until that is remembered. None of these steps
    /// touches a directory, whatever another export does at the same time.
    fn make_inner(&self, directory: &OwnedFd) -> anyhow::Result<OwnedFd> {
        if disk::find(directory, INNER)?.is_some_and(|(_, kind)| kind != FileType::Directory) {
            if disk::find(directory, OLD_OWNER)?.is_none() {
                disk::link(directory, INNER, directory, OLD_OWNER)?;
            }
            disk::remove(directory, INNER)?;
        }
        disk::make_dir(directory, INNER)?;
        disk::sync(directory)?;
        self.open_inner(directory)?.context("it was changed at this moment")
    }
}

fn is_saved(how: &Remembered, layout: &Layout<'_>) -> bool {
    layout.remembered().is_ok_and(|saved| saved.as_ref() == Some(how))
}

/// What an export did.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// Readers find new files.
    Wrote,
    /// They do not, but the options of the next export are others.
    Remembered,
    /// Nothing, or it cleared up what another export left.
    Nothing,
}

/// A directory that this export alone writes to.
pub struct Claimed {
    shown: PathBuf,
    directory: OwnedFd,
    /// What was made for it.
    made: Vec<OwnedFd>,
    inner: OwnedFd,
    how: Remembered,
    _lock: OwnedFd,
}

impl Claimed {
    /// Brings the files into the directory, whatever is there.
    pub fn write(&mut self, files: &Files) -> anyhow::Result<Done> {
        let layout = Layout { shown: &self.shown, directory: &self.directory, inner: &self.inner };
        layout.settle()?;
        let is_new = layout.files(&self.how).is_none_or(|found| found != *files);
        // A kill between the switch and the end of the command must not make the command forgotten.
        self.how.is_command_due = self.how.exec.is_some() && (is_new || self.how.is_command_due);
        let is_remembered = is_saved(&self.how, &layout);
        if is_new {
            if let Err(error) = layout.switch(files, &self.how) {
                // What is not in use goes, for a full disk's sake; if this fails too, the next export does it.
                let _ = layout.tidy();
                return Err(error);
            }
        } else {
            layout.tidy()?;
            if !is_remembered {
                self.save()?;
            }
        }
        for directory in &self.made {
            layout::open(directory, &self.how)?;
        }
        layout.open(&self.how)?;
        for old in [OLD_OWNER, OLD_TEMPORARY] {
            if disk::find(&self.directory, old)?.is_some_and(|(_, kind)| kind == FileType::RegularFile) {
                disk::remove(&self.directory, old).with_context(|| format!("{} cannot be removed", self.shown.join(old).display()))?;
            }
        }
        Ok(match (is_new, is_remembered) {
            (true, _) => Done::Wrote,
            (false, false) => Done::Remembered,
            (false, true) => Done::Nothing,
        })
    }

    /// The names of files that the terminator reads, in words.
    pub fn names(&self, files: &Files) -> String {
        let names = files.names(&self.how);
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }

    /// What to run now, if anything.
    pub fn due_command(&self) -> Option<&str> {
        self.how.exec.as_deref().filter(|_| self.how.is_command_due)
    }

    /// Remembers that the command succeeded.
    pub fn command_succeeded(&mut self) -> anyhow::Result<()> {
        self.how.is_command_due = false;
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        self.how
            .save(&self.inner)
            .with_context(|| format!("{} cannot be written: repeat the export once that is put right", self.shown.join(INNER).display()))
    }
}

/// Says who may read the exported files but cannot get to them, in a sentence for the owner and one for the group.
pub fn kept_out(path: &Path, force: bool) -> anyhow::Result<Vec<String>> {
    let way = Way::find(path, force)?;
    let directory = way.directory()?.with_context(|| format!("--out: {} is missing", path.display()))?;
    readers::kept_out(&directory, way.passed()).with_context(|| format!("--out: {} cannot be read", path.display()))
}
