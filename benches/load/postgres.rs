//! A PostgreSQL of our own: Debian's package with its default settings, fsync on, on a free port, not run by root.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::Mutex,
};

/// A running server. It and its directory go when this is dropped.
pub struct Postgres {
    server: Mutex<Child>,
    pid: AtomicU32,
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
        let (server, pid) = spawn(&bin, dir.path(), owner, port)?;
        let this = Self { server: Mutex::new(server), pid: AtomicU32::new(pid), port, bin, owner, dir };
        this.until_it_answers().await?;
        Ok(this)
    }

    async fn until_it_answers(&self) -> anyhow::Result<()> {
        for _ in 0..600 {
            if self.sql("postgres", "SELECT 1").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("PostgreSQL does not start: {}", fs::read_to_string(self.log_path()).unwrap_or_default())
    }

    /// Stops the server in its fast mode, which ends all connections, and starts it again.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.start_after(Signal::INT).await
    }

    /// Stops the server at once, so that it has to recover from its write-ahead log.
    pub async fn crash(&self) -> anyhow::Result<()> {
        self.start_after(Signal::QUIT).await
    }

    async fn start_after(&self, signal: Signal) -> anyhow::Result<()> {
        let mut server = self.server.lock().await;
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("no process ID")?;
        rustix::process::kill_process(pid, signal)?;
        tokio::time::timeout(Duration::from_mins(1), server.wait()).await.context("PostgreSQL does not stop")??;
        let (started, pid) = spawn(&self.bin, self.dir.path(), self.owner, self.port)?;
        *server = started;
        self.pid.store(pid, Ordering::Relaxed);
        self.until_it_answers().await
    }

    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        Self::url_through(self.port, database)
    }

    /// The URL of a database by another port, which passes connections on.
    pub fn url_through(port: u16, database: &str) -> String {
        format!("postgres://csrd@127.0.0.1:{port}/{database}")
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
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::QUIT);
        }
        for _ in 0..100 {
            if !matches!(self.server.get_mut().try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Starts the server, which appends to its log; it with its process ID.
fn spawn(bin: &Path, dir: &Path, owner: Option<(u32, u32)>, port: u16) -> anyhow::Result<(Child, u32)> {
    let settings = [
        format!("port={port}"),
        format!("unix_socket_directories={}", dir.display()),
        "listen_addresses=127.0.0.1".to_owned(),
        "max_connections=200".to_owned(),
        "fsync=on".to_owned(),
        // For what reads the log: see accept.rs.
        "log_line_prefix=%p|".to_owned(),
    ];
    let log = fs::File::options().append(true).create(true).open(dir.join("log"))?;
    let mut server = command(&bin.join("postgres"), dir, owner);
    server.args(["-D", "data"]).args(settings.iter().flat_map(|setting| ["-c", setting]));
    let server = server.stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn()?;
    let pid = server.id().context("the server ended")?;
    Ok((server, pid))
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
