//! `csrd`: the command line.

mod cli;

use std::process::ExitCode;

/// What one thread allocates another one often frees here: the C library's allocator takes a lock of the other thread then, and requests
/// wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
