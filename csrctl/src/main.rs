//! `csrctl`: custom CSRs from the command line, for the tenants of a csrd.

// They panic where nobody reads: `output` has `print` and `complain`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod client;
mod commands;
mod failure;
mod login;
mod output;
mod problem;
mod scope;
mod session;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
