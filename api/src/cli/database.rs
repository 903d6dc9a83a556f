//! Which database.

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use shared::storage::{Access, Database, Location, Migrate};

use super::bad_setting;

/// Where the data is.
#[derive(Args, Clone)]
pub struct DatabaseArgs {
    /// The directory with the database, the master key and, for the demo identity, the signing key
    #[arg(long, env = "CSRD_DATA_DIR", hide_env_values = true, default_value = "./csrd-data")]
    pub data_dir: PathBuf,
    /// The database, where it is not csrd.db in the data directory: `sqlite:PATH` or `postgres://USER@HOST/NAME`
    #[arg(long, env = "CSRD_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
}

impl DatabaseArgs {
    /// Opens the database for a command that works beside those that serve.
    pub async fn open(&self) -> anyhow::Result<Database> {
        self.open_for(Access::default()).await
    }

    /// Opens the database; creates and migrates it where needed.
    pub async fn open_for(&self, access: Access) -> anyhow::Result<Database> {
        Ok(Database::open(&self.location()?, access).await?)
    }

    /// Opens the database where there is one already; a file that is missing is not made.
    pub async fn open_existing(&self) -> anyhow::Result<Option<Database>> {
        match self.named()? {
            Location::Sqlite(path) if !path.exists() => Ok(None),
            Location::Sqlite(_) | Location::Postgres(_) => self.open().await.map(Some),
        }
    }

    /// Where the database is. The data directory is created where the file lies in it.
    pub fn location(&self) -> anyhow::Result<Location> {
        if self.database_url.is_none() {
            create_private_dir(&self.data_dir).map_err(|error| bad_setting(format!("{error:#}")))?;
        }
        self.named()
    }

    fn named(&self) -> anyhow::Result<Location> {
        let Some(url) = &self.database_url else { return Ok(Location::Sqlite(self.data_dir.join("csrd.db"))) };
        if let Some(rest) = url.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() || path.contains('?') || path.starts_with(':') {
                return Err(bad_setting("--database-url: sqlite: needs the path of a file, without parameters"));
            }
            return Ok(Location::Sqlite(PathBuf::from(path)));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The URL may hold a password: it is not repeated.
            let options = url.parse().map_err(|error| bad_setting(format!("--database-url: {error}")))?;
            return Ok(Location::Postgres(Box::new(options)));
        }
        Err(bad_setting("--database-url: sqlite:PATH or postgres://USER@HOST/NAME is expected"))
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
    args.open_for(Access { migrate: Migrate::Always, ..Access::default() }).await?.close().await;
    println!("the database is up to date");
    Ok(ExitCode::SUCCESS)
}
