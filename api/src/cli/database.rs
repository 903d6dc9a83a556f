//! Which database.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use shared::storage::{Database, open_sqlite};

use super::bad_setting;

/// Where the data is.
#[derive(Args, Clone)]
pub struct DatabaseArgs {
    /// The directory with the database, the master key and, for the demo identity, the signing key
    #[arg(long, env = "CSRD_DATA_DIR", hide_env_values = true, default_value = "./csrd-data")]
    pub data_dir: PathBuf,
    /// The database, where it is not csrd.db in the data directory: sqlite:PATH
    #[arg(long, env = "CSRD_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
}

impl DatabaseArgs {
    /// Opens the database, creating and migrating it where needed; `exclusive` for the process that serves.
    pub async fn open(&self, exclusive: bool) -> anyhow::Result<Database> {
        Ok(open_sqlite(&self.sqlite_path()?, exclusive).await?)
    }

    /// The SQLite file that is meant. The data directory is created where the file lies in it.
    pub fn sqlite_path(&self) -> anyhow::Result<PathBuf> {
        let Some(url) = &self.database_url else {
            create_private_dir(&self.data_dir)?;
            return Ok(self.data_dir.join("csrd.db"));
        };
        let Some(rest) = url.strip_prefix("sqlite:") else {
            return Err(bad_setting("--database-url: only sqlite:PATH is supported"));
        };
        let path = rest.strip_prefix("//").unwrap_or(rest);
        if path.is_empty() || path.contains('?') || path.starts_with(':') {
            return Err(bad_setting("--database-url: sqlite: needs the path of a file, without parameters"));
        }
        Ok(PathBuf::from(path))
    }
}

/// Creates a directory that only its owner may enter; one that exists is left as it is.
pub fn create_private_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("--data-dir: {} cannot be created", path.display()))
}

/// `csrd migrate`.
pub async fn migrate(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    args.open(false).await?;
    println!("the database is up to date");
    Ok(ExitCode::SUCCESS)
}
