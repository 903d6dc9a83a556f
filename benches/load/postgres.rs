//! A PostgreSQL of our own: Debian's package with its default settings, fsync on, on a free port, not run by root.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A running server. It and its directory go when this is dropped.
pub struct Postgres {
    server: Child,
    pid: u32,
    port: u16,
    bin: PathBuf,
    owner: Option<(u32, u32)>,
    dir: TempDir,
}

impl Postgres {
    pub async fn start(parent: &Path) -> anyhow::Result<Self> {
        let bin = bin()?;
        let dir = tempfile::Builder::new().prefix("csrd-load-postgres-").tempdir_in(parent)?;
        let owner = if rustix::process::getuid().is_root() { Some(postgres_user()?) } else { None };
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid))?;
        }
        let mut initdb = command(&bin.join("initdb"), dir.path(), owner);
        output(initdb.args(["--pgdata", "data", "--username", "csrd", "--auth", "trust", "--encoding", "UTF8", "--no-locale"])).await?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = [
            format!("port={port}"),
            format!("unix_socket_directories={}", dir.path().display()),
            "listen_addresses=127.0.0.1".to_owned(),
            "max_connections=200".to_owned(),
            "fsync=on".to_owned(),
            // For what reads the log: see accept.rs.
            "log_line_prefix=%p|".to_owned(),
        ];
        let log = fs::File::create(dir.path().join("log"))?;
        let mut server = command(&bin.join("postgres"), dir.path(), owner);
        server.args(["-D", "data"]).args(settings.iter().flat_map(|setting| ["-c", setting]));
        let server = server.stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn()?;
        let pid = server.id().context("the server ended")?;
        let this = Self { server, pid, port, bin, owner, dir };
        for _ in 0..300 {
            if this.sql("postgres", "SELECT 1").await.is_ok() {
                return Ok(this);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("PostgreSQL does not start: {}", fs::read_to_string(this.log_path()).unwrap_or_default())
    }

    pub const fn pid(&self) -> u32 {
        self.pid
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://csrd@127.0.0.1:{}/{database}", self.port)
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// One of the package's programs, told where the server is.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut client = command(&self.bin.join(program), self.dir.path(), self.owner);
        client.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "csrd"]).env("PGDATABASE", database);
        client
    }

    /// What a statement gives, without decoration.
    pub async fn sql(&self, database: &str, statement: &str) -> anyhow::Result<String> {
        let mut psql = self.client("psql", database);
        output(psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement])).await
    }

    pub async fn number(&self, database: &str, query: &str) -> anyhow::Result<i64> {
        let text = self.sql(database, query).await?;
        text.trim().parse().with_context(|| format!("{query} gives {text:?}"))
    }

    /// Runs a script of pgbench with prepared statements, which the server's user has to be able to read: transactions a second, and how many in all.
    pub async fn pgbench(&self, database: &str, script: &Path, clients: usize, time: Duration) -> anyhow::Result<(f64, i64)> {
        let mut pgbench = self.client("pgbench", database);
        let (clients, time) = (clients.to_string(), time.as_secs().to_string());
        pgbench.args(["--no-vacuum", "--protocol", "prepared", "--jobs", "2", "--client", &clients, "--time", &time, "--file"]).arg(script);
        let text = output(&mut pgbench).await?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} lacks in {text}"));
        let done = field("number of transactions actually processed: ")?.parse()?;
        let rate = field("tps = ")?.split(' ').next().unwrap_or_default().parse().context("pgbench's rate")?;
        Ok((rate, done))
    }

    pub async fn version(&self) -> anyhow::Result<String> {
        Ok(self.sql("postgres", "SHOW server_version").await?.trim().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown: its children end with it, and its shared memory goes.
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::QUIT);
        }
        for _ in 0..100 {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The newest version's programs.
fn bin() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bins = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists() && bin.join("pgbench").exists());
    let version = |bin: &PathBuf| bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
    bins.max_by_key(version).context("no PostgreSQL below /usr/lib/postgresql: apt-get install postgresql")
}

/// PostgreSQL refuses to be run by root; Debian's package makes this user.
fn postgres_user() -> anyhow::Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:")).context("no user postgres: apt-get install postgresql")?;
    let fields: Vec<_> = line.split(':').collect();
    ensure!(fields.len() > 3, "a broken line in /etc/passwd");
    Ok((fields[2].parse()?, fields[3].parse()?))
}

fn command(program: &Path, dir: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).kill_on_drop(true).stdin(std::process::Stdio::null());
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs a program to its end; its standard output.
pub async fn output(command: &mut Command) -> anyhow::Result<String> {
    let done =
        command.kill_on_drop(true).output().await.with_context(|| format!("{} cannot be run", command.as_std().get_program().display()))?;
    ensure!(done.status.success(), "{:?}: {}", command.as_std(), String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?)
}
