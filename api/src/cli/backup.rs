//! `csrd backup`: a copy of a live SQLite database.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use shared::storage::{Location, Queue};

use super::{bad_setting, database::DatabaseArgs};

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
    let database = args.database.open().await?;
    // Private from the start; SQLite fills an empty file.
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
    let copy = created.with_context(|| format!("{} cannot be created", args.file.display()))?;
    let copied = copy_to(&args.file, &database.queue).await.and_then(|()| Ok(copy.sync_all()?));
    database.close().await;
    if let Err(error) = copied {
        // Half a copy would look like a backup, and be in the way of the next one.
        let _ = std::fs::remove_file(&args.file);
        return Err(error.context(format!("the copy to {} failed, and nothing is left of it", args.file.display())));
    }
    println!("copied to {}: keep it apart from the master key, without which its private keys cannot be opened", args.file.display());
    Ok(ExitCode::SUCCESS)
}

async fn copy_to(file: &Path, queue: &Queue) -> anyhow::Result<()> {
    if let Queue::Sqlite(pool) = queue {
        let path = file.to_str().context("the file's name is not UTF-8")?;
        sqlx::query("VACUUM INTO $1").bind(path).execute(pool).await?;
    }
    Ok(())
}
