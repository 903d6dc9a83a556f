//! `csrd man`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use rustix::{fs::Mode, process::umask};

/// Where to.
#[derive(Args)]
pub struct ManArgs {
    /// The directory that gets the pages; it is made where it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes a page for `csrd` and one for each of its commands. Everyone may read them.
pub fn write(args: &ManArgs) -> anyhow::Result<ExitCode> {
    umask(Mode::WGRP | Mode::WOTH);
    pages(&args.dir).with_context(|| format!("{} cannot take the manual pages", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn pages(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(super::command(), dir)
}
