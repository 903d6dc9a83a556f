//! The directory that a TLS terminator reads: a certificate, its private key, and whose they are.
//!
//! Each file comes by rename, so that a reader sees the old one or the new one, never half of it. Links are not followed. What was begun
//! and not finished is repaired by doing it again.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fsync, openat, renameat, unlinkat},
    io::Errno,
};

use super::database::create_private_dir;

/// Holds the custom certificate's ID.
const OWNER: &str = ".csrd";
/// Renames to the file itself.
const TEMPORARY: &str = ".csrd.tmp";

/// A directory that may be written to, locked against other exports.
pub struct Directory {
    path: PathBuf,
    directory: File,
}

impl Directory {
    /// Takes a directory for the certificate with this ID; makes it where it is missing.
    ///
    /// One of another certificate, and one with PEM files of nobody's, is refused unless `force`.
    pub fn claim(path: &Path, id: &str, force: bool) -> anyhow::Result<Self> {
        // Without `/` and `/.` at its end, which would follow a link.
        let path: PathBuf = path.components().collect();
        let name = path.display().to_string();
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            bail!("--out: {name} is a link, and links are not followed: name the directory itself");
        }
        create_private_dir(&path).map_err(|error| anyhow!("--out: {name} cannot be made: {}", error.root_cause()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty()).with_context(|| format!("--out: {name} cannot be opened"))?;
        let this = Self { path, directory: File::from(opened) };
        flock(&this.directory, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("--out: another export writes to {name}"))?;
        if !force {
            this.check_owner(id)?;
        }
        Ok(this)
    }

    fn check_owner(&self, id: &str) -> anyhow::Result<()> {
        let name = self.path.display();
        match self.owner()? {
            Some(owner) if owner == id => Ok(()),
            Some(owner) => bail!("--out: {name} belongs to the custom certificate {owner}: use another directory, or --force"),
            None if self.has_pem_files()? => {
                bail!("--out: {name} has PEM files that no export wrote: use another directory, or --force")
            }
            None => Ok(()),
        }
    }

    /// Whose the directory is.
    fn owner(&self) -> anyhow::Result<Option<String>> {
        let path = self.path.join(OWNER);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, OWNER, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(anyhow!(error).context(format!("--out: {} cannot be read", path.display()))),
        };
        let mut text = String::new();
        // An ID has 32 digits; whatever else stands there need not be read to its end.
        file.take(256).read_to_string(&mut text).with_context(|| format!("--out: {} cannot be read", path.display()))?;
        Ok(Some(text.trim().to_owned()))
    }

    fn has_pem_files(&self) -> anyhow::Result<bool> {
        for entry in Dir::read_from(&self.directory)? {
            if entry?.file_name().to_bytes().ends_with(b".pem") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes whose it is, then the private key, then the chain.
    pub fn write(&self, id: &str, private_key_pem: &[u8], chain_pem: &[u8]) -> anyhow::Result<()> {
        let owner = format!("{id}\n");
        for (name, content) in [(OWNER, owner.as_bytes()), ("privkey.pem", private_key_pem), ("fullchain.pem", chain_pem)] {
            self.replace(name, content).with_context(|| {
                format!("{} cannot be written: repeat the export once that is put right", self.path.join(name).display())
            })?;
        }
        Ok(())
    }

    fn replace(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        // What an export left that was killed.
        match unlinkat(&self.directory, TEMPORARY, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.directory, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?);
        let written = file.write_all(content).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = unlinkat(&self.directory, TEMPORARY, AtFlags::empty());
            return Err(error.into());
        }
        renameat(&self.directory, TEMPORARY, &self.directory, name)?;
        fsync(&self.directory)?;
        Ok(())
    }
}
