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

/// What one thread allocates another one often frees here: the C library's allocator takes a lock of the other thread then, and requests
/// wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    harden();
    cli::run()
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
