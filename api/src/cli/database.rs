//! Which database.

use std::{
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, builder::BoolishValueParser};
use shared::storage::{Access, Database, Location, Migrate, OpenError};

use super::{bad_setting, data_dir::master_key_files, settings::say};

/// Where the data is.
#[derive(Args, Clone)]
pub struct DatabaseArgs {
    /// The directory with the database, the master key and, for the demo identity, the signing key
    #[arg(long, env = "CSRD_DATA_DIR", hide_env_values = true, default_value = "./csrd-data")]
    pub data_dir: PathBuf,
    /// The database's URL: `sqlite:PATH` or `postgres://USER@HOST/NAME` [default: csrd.db in the data directory]
    #[arg(long, env = "CSRD_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
}

impl DatabaseArgs {
    /// Opens the database for a command that works beside those that serve. Nothing is made where nothing of csrd is: in a wrong directory,
    /// or on a wrong server, the command would seem to work, on nothing.
    pub async fn open(&self) -> anyhow::Result<Database> {
        if let Some(database) = self.open_existing().await? {
            return Ok(database);
        }
        let place = self.place()?;
        let make = if is_missing(&self.location()?) { "" } else { ", or make one there by `csrd migrate`" };
        bail!("there is no database {place}: give --data-dir or --database-url{make}")
    }

    /// Opens the database, or returns `None` if there is none of csrd.
    pub async fn open_existing(&self) -> anyhow::Result<Option<Database>> {
        let location = self.location()?;
        if is_missing(&location) {
            return Ok(None);
        }
        match Database::open(&location, Access::default()).await {
            Err(OpenError::Empty) => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    /// Opens the database, and makes it if there is none.
    pub async fn open_or_create(&self) -> anyhow::Result<Database> {
        self.create_for(Access { migrate: Migrate::FirstStart, ..Access::default() }).await
    }

    /// Opens the database for a process that may make it. Beside a master key a missing file is refused, unless a new one is asked for:
    /// the keys that it sealed are elsewhere.
    pub async fn open_for(&self, access: Access, new_database: bool) -> anyhow::Result<Database> {
        if !new_database
            && is_missing(&self.location()?)
            && let Some(key) = master_key_files(&self.data_dir)?.first()
        {
            return Err(bad_setting(format!(
                "there is a master key, {}, but no database {}: give the right --data-dir or --database-url, restore the database, or begin \
                 with an empty one by --new-database",
                key.display(),
                self.place()?
            )));
        }
        self.create_for(access).await
    }

    async fn create_for(&self, access: Access) -> anyhow::Result<Database> {
        let location = self.location()?;
        let is_new = is_missing(&location);
        if self.database_url.is_none() {
            create_private_dir(&self.data_dir).map_err(|error| bad_setting(format!("{error:#}")))?;
        }
        let database = Database::open(&location, access).await?;
        warn_of_open(&self.data_dir, &location);
        if is_new {
            tracing::info!("made a new database, {}", self.place()?);
        }
        Ok(database)
    }

    /// The database for people: without a password.
    pub fn place(&self) -> anyhow::Result<String> {
        Ok(match self.location()? {
            Location::Sqlite(path) => path.display().to_string(),
            Location::Postgres(options) => {
                let (host, port) = (options.get_host(), options.get_port());
                format!("postgres://{host}:{port}/{}", options.get_database().unwrap_or(options.get_username()))
            }
        })
    }

    /// Where the database is.
    pub fn location(&self) -> anyhow::Result<Location> {
        let Some(url) = &self.database_url else {
            let path = self.data_dir.join("csrd.db");
            if path.to_str().is_none() {
                return Err(bad_setting(format!("--data-dir: {} is not UTF-8, which SQLite needs", self.data_dir.display())));
            }
            return Ok(Location::Sqlite(path));
        };
        if let Some(rest) = url.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() || path.contains('?') || path.starts_with(':') {
                return Err(bad_setting("--database-url: sqlite: needs the path of a file, without parameters"));
            }
            return Ok(Location::Sqlite(PathBuf::from(path)));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return postgres(url);
        }
        Err(bad_setting("--database-url: sqlite:PATH or postgres://USER@HOST/NAME is expected"))
    }
}

/// The parameters of a URL of PostgreSQL that sqlx knows, but for `options[…]`.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Parses a URL of PostgreSQL. It may hold a password: it is not repeated. An unknown parameter is refused, since sqlx logs its value.
fn postgres(url: &str) -> anyhow::Result<Location> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (name, _) in form_urlencoded::parse(query.split('#').next().unwrap_or_default().as_bytes()) {
        if !PARAMETERS.contains(&&*name) && !name.starts_with("options[") {
            return Err(bad_setting(format!("--database-url: the parameter {} is unknown", name.escape_debug())));
        }
    }
    let hint = "in a user and a password, write : as %3A, / as %2F and @ as %40";
    let options = url.parse().map_err(|error| bad_setting(format!("--database-url: {error} ({hint})")))?;
    Ok(Location::Postgres(Box::new(options)))
}

/// Creates a directory that only its owner may enter; one that exists is left as it is.
pub fn create_private_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("--data-dir: {} cannot be created", path.display()))
}

/// Warns of a data directory that others can change, and of a database that they can read or change: csrd would go on with what they wrote.
fn warn_of_open(data_dir: &Path, location: &Location) {
    let is_open = |path: &Path, bits: u32| std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & bits != 0);
    if is_open(data_dir, 0o022) {
        let path = data_dir.display();
        tracing::warn!("others than its owner can change what is in the data directory: run `chmod 700 {path}`");
    }
    if let Location::Sqlite(file) = location
        && is_open(file, 0o026)
    {
        let path = file.display();
        tracing::warn!("others than its owner can read or change the database: run `chmod 600 {path}*`");
    }
}

/// Whether nothing is there. An empty file is what is left where one was cut off.
fn is_missing(location: &Location) -> bool {
    matches!(location, Location::Sqlite(path) if std::fs::metadata(path).map_or_else(|_| !path.exists(), |file| file.is_file() && file.len() == 0))
}

/// Settings of `csrd migrate`.
#[derive(Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    new: NewDatabaseArgs,
}

/// Whether an empty database may be made beside a master key.
#[derive(Args)]
pub struct NewDatabaseArgs {
    /// Make an empty database although a master key lies in the data directory
    #[arg(long, env = "CSRD_NEW_DATABASE", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub new_database: bool,
}

/// `csrd migrate`.
pub async fn migrate(args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    let access = Access { migrate: Migrate::Always, ..Access::default() };
    let database = args.database.open_for(access, args.new.new_database).await?;
    match database.migrated {
        0 => say("the database is up to date")?,
        1 => say("ran 1 migration: the database is up to date")?,
        ran => say(&format!("ran {ran} migrations: the database is up to date"))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}
