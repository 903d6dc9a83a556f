//! `csrd backup`: a copy of a live SQLite database.

use std::{
    path::{PathBuf, absolute},
    process::ExitCode,
};

use anyhow::Context;
use api::secret_file::NewFile;
use clap::Args;
use shared::storage::Location;

use super::{bad_setting, database::DatabaseArgs, settings::say};

/// What to copy, and where to.
#[derive(Args)]
pub struct BackupArgs {
    /// The copy; it must not exist yet
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Copies the database as it is at one moment, beside a running server.
pub async fn backup(args: BackupArgs) -> anyhow::Result<ExitCode> {
    if matches!(args.database.location()?, Location::Postgres(_)) {
        return Err(bad_setting("--database-url: csrd backup copies SQLite; on PostgreSQL use pg_dump"));
    }
    let place = args.file.display();
    // SQLite takes what begins with `file:` for a URI.
    let path = absolute(&args.file).with_context(|| format!("{place} cannot be created"))?;
    if path.to_str().is_none() {
        return Err(bad_setting(format!("<FILE>: {place} is not UTF-8, which SQLite needs")));
    }
    let database = args.database.open().await?;
    // Half a copy would look like a backup, and be in the way of the next one.
    let copy = NewFile::begin(&path).with_context(|| format!("{place} cannot be created"))?;
    let copied = database.copy_to(copy.temporary()).await;
    database.close().await;
    copied.with_context(|| format!("the copy to {place} failed, and nothing is left of it"))?;
    copy.finish().with_context(|| format!("{place} cannot be created"))?;
    say(&format!("copied to {place}: keep it apart from the master key, without which its private keys cannot be opened"))?;
    Ok(ExitCode::SUCCESS)
}
