//! `csrd`: the command line.

// They panic where nobody reads: `cli::settings` has `say` and `complain`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use rustix::{
    fs::Mode,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask},
};

/// One thread often frees here what another one allocated: the C library's allocator then takes a lock of the other thread, and requests
/// wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ! {
    harden();
    leave(cli::run())
}

/// Ends the process: what was printed is flushed already. Threads may still make keys or wait for a name server, and must not
/// run into the exit handlers of the C libraries: aws-lc aborts the process when a thread asks for its first random bytes after them.
fn leave(code: ExitCode) -> ! {
    let status = (0..=u8::MAX).find(|status| ExitCode::from(*status) == code);
    signal_hook::low_level::exit(i32::from(status.unwrap_or(1)))
}

/// Before anything secret is read: no core file, no debugger of the same user, no file that others can read.
fn harden() {
    umask(Mode::RWXG | Mode::RWXO);
    let hardened = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }));
    if let Err(error) = hardened {
        let _ = writeln!(io::stderr(), "csrd: the process may leave a core file with secrets: {error}");
    }
}
