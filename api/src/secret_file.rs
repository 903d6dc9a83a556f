//! Files with secrets: written whole or not at all, read only where nobody else can read or change them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt,
    fs::{File, Metadata},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{CWD, Mode, OFlags, RenameFlags, linkat, renameat_with},
    io::Errno,
    process::geteuid,
};
use zeroize::Zeroizing;

/// The most that a file may hold, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Who may read and write a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Its owner alone: root, or the user that csrd runs as.
    Secret,
    /// Anyone.
    Public,
}

/// Why a file is not used. It names the file, and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FileError {
    path: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Missing,
    Refused(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::Refused(problem) => f.write_str(problem),
        }
    }
}

impl FileError {
    /// A file whose content is not what is expected.
    #[must_use]
    pub fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path.display().to_string(), problem: Problem::Refused(problem.into()) }
    }

    fn missing(path: &Path) -> Self {
        Self { path: path.display().to_string(), problem: Problem::Missing }
    }

    /// What is wrong, without the file's name.
    #[must_use]
    pub fn problem(&self) -> String {
        self.problem.to_string()
    }
}

/// Reads a file of at most 1 MiB. Links are followed. A FIFO, a device or a directory is refused: none of them holds up a start.
///
/// # Errors
///
/// [`FileError`] if it cannot be read, is no regular file, is too large, or holds a secret that others can read or change.
pub fn read(path: &Path, content: Content) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_up_to(path, content, MAX_BYTES)
}

/// Reads a file of at most this many bytes, as [`read`] does.
///
/// # Errors
///
/// As [`read`].
pub fn read_up_to(path: &Path, content: Content, max_bytes: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let cannot = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => FileError::missing(path),
        _ => FileError::new(path, format!("it cannot be read: {error}")),
    };
    // A FIFO without a writer would keep an open without NONBLOCK waiting for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| cannot(errno.into()))?);
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err(FileError::new(path, "it is not a regular file: name the file itself"));
    }
    if content == Content::Secret {
        check_access(path, &metadata)?;
    }
    if metadata.len() > max_bytes {
        return Err(FileError::new(path, format!("it has over {max_bytes} bytes")));
    }
    // As large as the file from the start: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1));
    file.take(max_bytes).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// Reads a file with a secret, or returns `None` if there is none.
///
/// # Errors
///
/// As [`read`].
pub fn read_secret_if_exists(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    match read(path, Content::Secret) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FileError { problem: Problem::Missing, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn check_access(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let (mode, owner, user) = (metadata.mode(), metadata.uid(), geteuid().as_raw());
    let name = path.display();
    if owner != 0 && owner != user {
        return Err(FileError::new(path, format!("it belongs to the user {owner}, who could change it: run `chown {user} {name}`")));
    }
    let may = if mode & 0o006 != 0 {
        "others can read or write it"
    } else if mode & 0o020 != 0 {
        "its group can write it"
    } else {
        if mode & 0o040 != 0 && is_news(path) {
            tracing::warn!(path = %name, "the group of a file with a secret can read it");
        }
        return Ok(());
    };
    Err(FileError::new(path, format!("{may}, and it holds a secret: run `chmod 600 {name}`")))
}

/// Whether nobody was warned of this file yet: some are read again and again.
fn is_news(path: &Path) -> bool {
    static TOLD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned())
}

/// Creates a file with a secret, readable for its owner alone. It never overwrites one, and leaves nothing behind on an error.
///
/// # Errors
///
/// `AlreadyExists` if there is one; otherwise what the operating system says.
pub fn create(path: &Path, secret: &[u8]) -> io::Result<()> {
    let new = NewFile::begin(path)?;
    File::options().write(true).open(new.temporary())?.write_all(secret)?;
    new.finish()
}

/// How the name of a file ends that is not whole yet.
const TEMPORARY: &str = ".tmp";

/// Whether a file of this name is one that is not whole yet, or was left behind by a process that was killed meanwhile.
#[must_use]
pub fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(TEMPORARY))
}

/// A file that gets its name once it is whole. Until then it lies beside, under a name that matters to nobody; dropped, it is gone.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    directory: PathBuf,
    temporary: PathBuf,
}

impl NewFile {
    /// Makes an empty file, readable for its owner alone.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is something at `path`; otherwise what the operating system says.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        if path.symlink_metadata().is_ok() {
            return Err(Errno::EXIST.into());
        }
        let temporary = directory.join(format!(".{name}.{}{TEMPORARY}", uuid::Uuid::now_v7().simple()));
        File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Self { path: path.to_owned(), directory, temporary })
    }

    /// Where to write it.
    #[must_use]
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives it its name when it is safely on disk; never overwrites anything.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is something by now; otherwise what the operating system says.
    pub fn finish(self) -> io::Result<()> {
        File::open(&self.temporary)?.sync_all()?;
        give_name(&self.temporary, &self.path)?;
        File::open(&self.directory)?.sync_all()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After a link the file has two names; after a rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Neither a link nor this rename overwrites anything; some file systems have no links.
fn give_name(temporary: &Path, path: &Path) -> io::Result<()> {
    match linkat(CWD, temporary, CWD, path, rustix::fs::AtFlags::empty()) {
        Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Ok(renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE)?),
        linked => Ok(linked?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn with_mode(dir: &TempDir, mode: u32) -> std::path::PathBuf {
        let path = dir.path().join(format!("{mode:o}"));
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_that_others_can_read_or_change_is_refused_and_the_command_that_mends_it_named() {
        let dir = TempDir::new().unwrap();
        for mode in [0o600, 0o400, 0o640, 0o700, 0o601] {
            assert_eq!(read(&with_mode(&dir, mode), Content::Secret).unwrap().as_slice(), b"secret", "{mode:o}");
        }
        for mode in [0o644, 0o666, 0o604, 0o602, 0o620, 0o660] {
            let path = with_mode(&dir, mode);
            let error = read(&path, Content::Secret).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
            assert!(read(&path, Content::Public).is_ok());
        }
        let link = dir.path().join("link");
        symlink(with_mode(&dir, 0o666), &link).unwrap();
        assert!(read(&link, Content::Secret).is_err(), "the file counts, not the link");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = TempDir::new().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        for path in [&fifo, dir.path(), Path::new("/dev/zero")] {
            assert!(read(path, Content::Public).unwrap_err().to_string().contains("not a regular file"), "{}", path.display());
        }
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(read(&large, Content::Public).is_err());
        assert!(read_secret_if_exists(&dir.path().join("none")).unwrap().is_none());
        assert!(read_secret_if_exists(&dir.path().join("none/below")).unwrap().is_none());
    }

    #[test]
    fn a_file_is_created_whole_private_and_never_over_another() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("new");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(create(&dir.path().join("none/new"), b"x").is_err());
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["new"], "nothing is left behind");
    }
}
