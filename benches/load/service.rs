//! `csrd` as a process of its own, on a fresh database.

use std::{
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    drive::{self, Watched},
    http,
    postgres::{Postgres, output},
};

/// Makes a POST wait until its custom CSR is no longer pending.
pub const WAIT: &[(&str, &str)] = &[("Prefer", "wait=30")];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub const BOTH: [Self; 2] = [Self::Sqlite, Self::Postgres];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// A data directory with its database, and the program that works on it.
pub struct Installation {
    csrd: PathBuf,
    dir: TempDir,
    /// `None` for SQLite: the file in the directory.
    server: Option<(Arc<Postgres>, String)>,
    zones: Vec<String>,
}

/// A running `csrd`; it is killed when this is dropped.
pub struct Process {
    child: Child,
    pub pid: u32,
    pub address: SocketAddr,
}

impl Installation {
    /// A fresh database with this many zones, which may have any number of custom CSRs.
    pub async fn new(csrd: &Path, parent: &Path, server: Option<Arc<Postgres>>, zones: usize) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("csrd-load-").tempdir_in(parent)?;
        let server = match server {
            Some(server) => {
                let name = dir.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase().replace('-', "_");
                server.sql("postgres", &format!("CREATE DATABASE {name}")).await?;
                // Flushes what earlier parts wrote: it must not be written while this part is measured.
                server.sql("postgres", "CHECKPOINT").await?;
                Some((server, name))
            }
            None => None,
        };
        // As long as a secret must be. It protects nothing.
        let mut secret = File::options().write(true).create_new(true).mode(0o600).open(dir.path().join("jwt.secret"))?;
        secret.write_all(b"a benchmark's secret, known to all who read this")?;
        let zones = (0..zones).map(|index| format!("bench-{index}")).collect();
        // Of its own: a build meanwhile must not change what is measured.
        let own = dir.path().join("csrd");
        fs::copy(csrd, &own)?;
        let this = Self { csrd: own, dir, server, zones };
        output(&mut this.command(&["migrate"])).await?;
        for zone in &this.zones {
            output(&mut this.command(&["zone", "grant", zone, "--quota", "4000000000"])).await?;
        }
        Ok(this)
    }

    fn command(&self, args: &[&str]) -> Command {
        let url = self.server.as_ref().map(|(server, name)| server.url(name));
        self.csrd(args, &self.data_dir(), url.as_deref())
    }

    /// A command of csrd on this data directory and this database.
    pub fn csrd(&self, args: &[&str], data_dir: &Path, url: Option<&str>) -> Command {
        let mut command = Command::new(&self.csrd);
        // No setting from outside; a variable that csrd does not know would stop it.
        command.env_clear().args(args).arg("--data-dir").arg(data_dir).stdin(std::process::Stdio::null());
        if let Some(url) = url {
            command.arg("--database-url").arg(url);
        }
        command
    }

    /// Where all files of this installation lie.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn jwt_secret(&self) -> PathBuf {
        self.dir.path().join("jwt.secret")
    }

    pub fn zones(&self) -> &[String] {
        &self.zones
    }

    pub async fn init_keys(&self) -> anyhow::Result<()> {
        output(&mut self.command(&["keys", "init"])).await.map(drop)
    }

    /// A token for all zones, signed as every token of this service.
    pub async fn token(&self) -> anyhow::Result<String> {
        let mut command = self.command(&["token", "issue", "--ttl", "48h"]);
        command.arg("--jwt-secret-file").arg(self.jwt_secret()).arg("--zone").args(&self.zones);
        Ok(output(&mut command).await?.trim().to_owned())
    }

    pub async fn serve(&self, args: &[&str]) -> anyhow::Result<Process> {
        // All clients have one address here, and one zone may have all that is pending.
        let mut command =
            self.command(&["serve", "--listen", "127.0.0.1:0", "--max-pending", "4000000000", "--max-connections-per-address", "10000"]);
        command.arg("--jwt-secret-file").arg(self.jwt_secret()).args(args);
        self.start(command, "serve.log").await
    }

    pub async fn work(&self, args: &[&str]) -> anyhow::Result<Process> {
        let mut command = self.command(&["worker", "--health-listen", "127.0.0.1:0"]);
        command.args(args);
        self.start(command, "worker.log").await
    }

    /// Starts a process with a log of its own, and waits until it is ready.
    pub async fn start(&self, mut command: Command, log: &str) -> anyhow::Result<Process> {
        let log = self.dir.path().join(log);
        let file = File::create(&log)?;
        let mut child = command.stdout(file.try_clone()?).stderr(file).kill_on_drop(true).spawn()?;
        let pid = child.id().context("csrd ended")?;
        for _ in 0..1_200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let text = fs::read_to_string(&log)?;
            ensure!(child.try_wait()?.is_none(), "csrd does not start: {text}");
            let Some((_, rest)) = text.split_once("listening on http://") else { continue };
            let address: SocketAddr = rest.split_whitespace().next().unwrap_or_default().parse()?;
            if drive::body_of(address, &http::request("GET", "/health/ready", &[], "")).await.is_ok() {
                return Ok(Process { child, pid, address });
            }
        }
        bail!("csrd does not become ready: {}", fs::read_to_string(&log)?)
    }

    /// What to watch while these run.
    pub fn watched(&self, processes: &[&Process]) -> Watched {
        let server = self.server.as_ref().map(|(server, _)| server.pid());
        Watched { processes: processes.iter().map(|process| process.pid).collect(), server }
    }

    /// A POST for each zone.
    pub fn posts(&self, token: &str, key_type: &str, headers: &[(&str, &str)]) -> Arc<Vec<Vec<u8>>> {
        let body = format!(
            r#"{{"country":"US","state":"California","locality":"San Francisco","organization":"Acme Widgets, Inc.","common_name":"www.acme-widgets.com","sans":["www.acme-widgets.com","acme-widgets.com"],"name":"shop","key_type":"{key_type}"}}"#
        );
        let authorization = format!("Bearer {token}");
        let headers: Vec<_> = [("Authorization", authorization.as_str())].into_iter().chain(headers.iter().copied()).collect();
        let post = |zone: &String| http::request("POST", &format!("/api/v4/zones/{zone}/custom_csrs"), &headers, &body);
        Arc::new(self.zones.iter().map(post).collect())
    }

    pub fn get(token: &str, path: &str) -> Vec<u8> {
        http::request("GET", &format!("/api/v4/zones/{path}"), &[("Authorization", &format!("Bearer {token}"))], "")
    }

    /// The number that a query gives, read beside the service.
    pub async fn number(&self, query: &str) -> anyhow::Result<i64> {
        if let Some((server, name)) = &self.server {
            return server.number(name, query).await;
        }
        Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut self.file(true).await?).await?)
    }

    pub async fn execute(&self, statements: &str) -> anyhow::Result<()> {
        if let Some((server, name)) = &self.server {
            return server.sql(name, statements).await.map(drop);
        }
        self.file(false).await?.execute(AssertSqlSafe(statements)).await?;
        Ok(())
    }

    async fn file(&self, read_only: bool) -> anyhow::Result<SqliteConnection> {
        let options = SqliteConnectOptions::new().filename(self.dir.path().join("data/csrd.db")).read_only(read_only);
        Ok(SqliteConnection::connect_with(&options.busy_timeout(Duration::from_secs(30))).await?)
    }

    /// The server and the database's name there.
    pub fn server(&self) -> anyhow::Result<(&Postgres, &str)> {
        self.server.as_ref().map(|(server, name)| (&**server, name.as_str())).context("not on a server")
    }

    /// Waits until no custom CSR is pending.
    pub async fn until_none_is_pending(&self) -> anyhow::Result<()> {
        for _ in 0..36_000 {
            if self.number("SELECT count(*) FROM custom_csrs WHERE status = 'pending'").await? == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("custom CSRs are pending for ever")
    }

    /// Waits until the pool holds this many keys.
    pub async fn until_pool_holds(&self, keys: i64) -> anyhow::Result<()> {
        for _ in 0..3_000 {
            if self.number("SELECT count(*) FROM pool_keys").await? >= keys {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the key pool is not filled within ten minutes")
    }

    /// Deletes the database.
    pub async fn remove(self) -> anyhow::Result<()> {
        if let Some((server, name)) = &self.server {
            server.sql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        }
        Ok(())
    }
}

impl Process {
    /// Stops it with SIGTERM.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.terminate().await.map(drop)
    }

    /// Stops it with SIGTERM; how it ended.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(Duration::from_mins(1), self.child.wait()).await;
        Ok(ended.map_err(|_| anyhow::anyhow!("csrd does not stop"))??)
    }

    /// Ends it with SIGKILL.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("no process ID")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// How it ended, if it did so by itself.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}
