//! Whether those who may read the files get to them: csrd opens only directories that it made.

use std::{ffi::CString, io, os::fd::OwnedFd, path::PathBuf};

use nix::unistd::{Gid, Uid, User, getgrouplist};
use rustix::{fs::Stat, process::geteuid};

use super::layout;

const READABLE_BY_GROUP: u32 = 0o040;
/// The bit by which somebody gets through a directory: its owner's, its group's, everyone else's.
const THROUGH: [u32; 3] = [0o100, 0o010, 0o001];

/// Says which directories on the way keep out the owner or the group of the private key, a sentence for each of the two.
pub fn kept_out(directory: &OwnedFd, way: &[(PathBuf, Stat)]) -> io::Result<Vec<String>> {
    let key = layout::key(directory)?;
    let mut readers = Vec::new();
    // Root and the own user got there.
    if key.st_uid != 0 && key.st_uid != geteuid().as_raw() {
        readers.push(("user", key.st_uid, Reader::user(key.st_uid)));
    }
    if key.st_mode & READABLE_BY_GROUP != 0 {
        readers.push(("group", key.st_gid, Reader { user: None, groups: vec![key.st_gid] }));
    }
    let sentence = |(whom, number, reader): (&str, u32, Reader)| {
        let closed: Vec<_> = way.iter().filter(|(_, stat)| !reader.passes(stat)).map(|(place, _)| place.display().to_string()).collect();
        let closed = closed.join(" ");
        (!closed.is_empty()).then(|| {
            format!(
                "the {whom} {number} may read the files, but the modes of directories on the way keep it out: \
                 run `chmod a+x {closed}`, or use another directory"
            )
        })
    };
    Ok(readers.into_iter().filter_map(sentence).collect())
}

/// Somebody by his user and groups.
struct Reader {
    user: Option<u32>,
    groups: Vec<u32>,
}

impl Reader {
    /// A user with the groups that the operating system's lists name.
    fn user(number: u32) -> Self {
        let groups = || {
            let user = User::from_uid(Uid::from_raw(number)).ok()??;
            getgrouplist(&CString::new(user.name).ok()?, user.gid).ok()
        };
        Self { user: Some(number), groups: groups().unwrap_or_default().into_iter().map(Gid::as_raw).collect() }
    }

    fn passes(&self, directory: &Stat) -> bool {
        let class = match () {
            () if self.user == Some(directory.st_uid) => 0,
            () if self.groups.contains(&directory.st_gid) => 1,
            () => 2,
        };
        directory.st_mode & THROUGH[class] != 0
    }
}
