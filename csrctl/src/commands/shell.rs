//! `csrctl completions` and `csrctl man`: what shells and `man` need.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use crate::{failure::Failure, output::print};

/// Prints what a shell needs to complete commands and options.
pub fn completions(mut command: Command, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "csrctl", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes a manual page for `csrctl` and one for each of its commands.
pub fn man(command: Command, dir: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.map_err(|error| Failure::usage(format!("{} cannot take the manual pages: {error}", dir.display())))
}
