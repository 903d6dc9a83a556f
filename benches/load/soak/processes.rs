//! The processes under load. The last API process and the last worker are never restarted: what they hold at the end shows whether memory grows.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

use anyhow::ensure;
use tokio::{process::Command, time::Instant};

use super::{locked, proxy::Proxy};
use crate::{
    numbers::mib,
    postgres::Postgres,
    service::{Installation, Process},
    usage,
};

/// Far below the defaults, so that the work of a dead process is taken over many times within the run.
const HASTE: [&str; 6] = ["--heartbeat-interval", "2s", "--orphan-after", ORPHAN_AFTER, "--sweep-interval", "2s"];
const ORPHAN_AFTER: &str = "6s";
/// Longer than a worker may be silent before others take its work.
pub const FREEZE: Duration = Duration::from_secs(9);

pub const APIS: [usize; 2] = [0, 1];
pub const WORKERS: [usize; 3] = [2, 3, 4];
const NAMES: [&str; 5] = ["api-1", "api-2", "worker-1", "worker-2", "worker-3"];
/// Those that no fault ends.
pub const STEADY: [usize; 2] = [1, 4];

/// A look at a process.
#[derive(Clone, Copy)]
pub struct Look {
    pub resident: u64,
    pub peak: u64,
    /// Open file descriptors; `None` if this user may not count them.
    pub descriptors: Option<u64>,
}

/// What was seen of one life of a process.
#[derive(Clone, Default)]
pub struct Seen {
    pub age: Duration,
    pub looks: Vec<Look>,
}

struct Member {
    pid: u32,
    address: SocketAddr,
    since: Instant,
    starts: usize,
    now: Seen,
    longest: Seen,
}

/// All processes, which reach the database through a proxy.
pub struct Fleet {
    installation: Installation,
    proxy: Proxy,
    url: String,
    members: Mutex<Vec<Member>>,
}

impl Fleet {
    /// With a data directory for each worker, as on machines of their own.
    pub async fn new(installation: Installation) -> anyhow::Result<Self> {
        let (server, database) = installation.server()?;
        let proxy = Proxy::start(server.port()).await?;
        let url = Postgres::url_through(proxy.port, database);
        for index in WORKERS {
            fs::DirBuilder::new().mode(0o700).create(installation.dir().join(NAMES[index]))?;
        }
        let fleet = Self { installation, proxy, url, members: Mutex::default() };
        fleet.hand_out_master_keys()?;
        Ok(fleet)
    }

    pub const fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Copies all master keys to the workers' machines.
    pub fn hand_out_master_keys(&self) -> anyhow::Result<()> {
        for entry in fs::read_dir(self.installation.data_dir())? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with("master") {
                continue;
            }
            for index in WORKERS {
                let there = self.installation.dir().join(NAMES[index]);
                // Renamed, so that no worker loads half a file.
                fs::copy(entry.path(), there.join("copy"))?;
                fs::rename(there.join("copy"), there.join(&name))?;
            }
        }
        Ok(())
    }

    /// A command of the operator, on the machine where the master keys are made.
    pub fn command(&self, args: &[&str]) -> Command {
        self.installation.csrd(args, &self.installation.data_dir(), Some(&self.url))
    }

    pub async fn start_all(&self) -> anyhow::Result<Vec<Process>> {
        let mut processes = Vec::new();
        for index in 0..NAMES.len() {
            processes.push(self.start(index).await?);
        }
        Ok(processes)
    }

    /// Starts a process, and waits until it is ready.
    pub async fn start(&self, index: usize) -> anyhow::Result<Process> {
        let starts = locked(&self.members).get(index).map_or(0, |member| member.starts) + 1;
        let args: &[&str] = if APIS.contains(&index) {
            &["serve", "--workers", "0", "--listen", "127.0.0.1:0", "--max-pending", "4000000000"]
        } else {
            &["worker", "--health-listen", "127.0.0.1:0", "--key-pool-size", "16"]
        };
        let mut command = self.installation.csrd(&[args, &HASTE].concat(), &self.installation.dir().join(NAMES[index]), Some(&self.url));
        if APIS.contains(&index) {
            command.arg("--jwt-secret-file").arg(self.installation.jwt_secret());
        }
        let process = self.installation.start(command, &format!("{}.{starts}.log", NAMES[index])).await?;
        let mut members = locked(&self.members);
        let longest = members.get(index).map(|member| member.longest.clone()).unwrap_or_default();
        let member = Member { pid: process.pid, address: process.address, since: Instant::now(), starts, now: Seen::default(), longest };
        if index < members.len() {
            members[index] = member;
        } else {
            members.push(member);
        }
        Ok(process)
    }

    /// The address of an API process; any number names one.
    pub fn api(&self, number: usize) -> SocketAddr {
        locked(&self.members)[APIS[number % APIS.len()]].address
    }

    pub fn cut_connections(&self) {
        self.proxy.cut();
    }

    /// Looks at every process. One that is just being replaced is not there.
    pub fn look(&self) {
        for member in locked(&self.members).iter_mut() {
            let Ok((resident, peak)) = usage::memory(member.pid) else { continue };
            member.now.looks.push(Look { resident, peak, descriptors: usage::descriptors(member.pid) });
            member.now.age = member.since.elapsed();
            if member.now.age > member.longest.age {
                member.longest.clone_from(&member.now);
            }
        }
    }

    /// Each process with its starts and its longest life.
    pub fn seen(&self) -> Vec<(usize, &'static str, usize, Seen)> {
        let members = locked(&self.members);
        members.iter().enumerate().map(|(index, member)| (index, NAMES[index], member.starts, member.longest.clone())).collect()
    }

    pub fn progress(&self) -> String {
        let members = locked(&self.members);
        let memory = |(name, member): (&&str, &Member)| {
            let resident = member.now.looks.last().map_or(0, |look| look.resident);
            format!("{name} {}", mib(resident))
        };
        NAMES.iter().zip(members.iter()).map(memory).collect::<Vec<_>>().join(", ")
    }

    /// Stops them in order. None of them cuts anything off: nobody asks any more.
    pub async fn stop_all(&self, processes: Vec<Process>) -> anyhow::Result<()> {
        for (process, name) in processes.into_iter().zip(NAMES) {
            let status = process.terminate().await?;
            ensure!(status.success(), "{name} ends with {status}");
        }
        Ok(())
    }

    /// Panics that the processes logged, each with its file.
    pub fn panics(&self) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        for path in self.logs()? {
            let file = BufReader::new(fs::File::open(&path)?);
            for line in file.split(b'\n') {
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                if line.contains("panicked at") {
                    found.push(format!("{}: {line}", path.file_name().unwrap_or_default().display()));
                }
            }
        }
        Ok(found)
    }

    fn logs(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.installation.dir())?.map(|entry| Ok(entry?.path()));
        let all = entries.collect::<std::io::Result<Vec<_>>>()?;
        Ok(all.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect())
    }

    /// Moves the logs to a directory that stays.
    pub fn keep_logs(&self) -> anyhow::Result<PathBuf> {
        let kept = self.installation.dir().with_extension("logs");
        fs::create_dir(&kept)?;
        for path in self.logs()? {
            fs::rename(&path, kept.join(path.file_name().unwrap_or_default()))?;
        }
        Ok(kept)
    }
}
