//! Signals that come before anybody takes them.

use nix::sys::signal::{SigSet, Signal};

/// Those that `serve` and `worker` take, and that would end them by themselves before.
const TAKEN: [Signal; 7] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM];

/// Lets them wait, from the first line of the process on. Nothing is lost: one that waits comes with [`release`].
pub fn hold() {
    // It fails for wrong arguments only, and these are constants.
    let _ = set().thread_block();
}

/// Lets them come: the thread that has held them calls this, when they are taken, or when they may end the process.
pub fn release() {
    let _ = set().thread_unblock();
}

fn set() -> SigSet {
    TAKEN.into_iter().collect()
}
