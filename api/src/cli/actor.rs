//! Who runs a command, for the audit table.

use nix::unistd::{Uid, User};
use shared::audit::{Actor, Via};

/// The operating system's user.
pub fn local() -> Actor {
    let uid = Uid::current();
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    Actor { who: format!("os:{name}"), via: Via::Cli, from: "local".to_owned(), request_id: None }
}
