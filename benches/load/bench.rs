//! What all parts share.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::process::Command;

use crate::{
    postgres::{Postgres, output},
    report::Report,
    service::{Backend, Installation, Process},
};

/// RSA keys that `csrd` keeps ahead by default.
pub const DEFAULT_POOL: u32 = 64;

/// A build of `csrd`, with the same build of this program for its key generation in a loop.
#[derive(Clone)]
pub struct Build {
    pub name: &'static str,
    pub csrd: PathBuf,
    pub bench: PathBuf,
}

pub struct Bench {
    pub quick: bool,
    pub dir: PathBuf,
    pub postgres: Arc<Postgres>,
    pub report: Report,
    own: Build,
    openssl: Option<Build>,
}

impl Bench {
    pub async fn start(quick: bool, dir: PathBuf) -> anyhow::Result<Self> {
        let csrd = build(&["build", "--release", "--package", "api"], "csrd").await?;
        let postgres = Arc::new(Postgres::start(&dir).await?);
        let own = Build { name: "aws-lc-rs", csrd, bench: std::env::current_exe()? };
        let mut report = Report::default();
        report.versions.push(format!("PostgreSQL {}", postgres.version().await?));
        Ok(Self { quick, dir, postgres, report, own, openssl: None })
    }

    /// The time for a run, given that of a full one.
    pub fn secs(&self, full: u64) -> Duration {
        Duration::from_secs(if self.quick { full.div_ceil(10).max(2) } else { full })
    }

    /// The number of things to do, given that of a full run.
    pub fn count(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// Both builds: the default one, and the one with RSA by OpenSSL.
    pub async fn builds(&mut self) -> anyhow::Result<[Build; 2]> {
        Ok([self.own.clone(), self.rsa_build().await?])
    }

    /// The build that makes RSA keys fastest.
    pub async fn rsa_build(&mut self) -> anyhow::Result<Build> {
        if let Some(build) = &self.openssl {
            return Ok(build.clone());
        }
        let build = openssl_build().await?;
        self.openssl = Some(build.clone());
        Ok(build)
    }

    pub async fn install(&self, backend: Backend, zones: usize) -> anyhow::Result<Installation> {
        self.install_build(&self.own, backend, zones).await
    }

    pub async fn install_build(&self, build: &Build, backend: Backend, zones: usize) -> anyhow::Result<Installation> {
        let server = (backend == Backend::Postgres).then(|| Arc::clone(&self.postgres));
        Installation::new(&build.csrd, &self.dir, server, zones).await
    }

    /// Serves with a pool of this many keys, and waits until it is filled.
    pub async fn serve(&self, installation: &Installation, pool: u32, args: &[&str]) -> anyhow::Result<Process> {
        let size = pool.to_string();
        let process = installation.serve(&[&["--key-pool-size", &size], args].concat()).await?;
        if pool > 0 {
            installation.until_pool_holds(pool.into()).await?;
        }
        Ok(process)
    }
}

/// Builds `csrd` and this program with RSA by OpenSSL.
async fn openssl_build() -> anyhow::Result<Build> {
    println!("building csrd with the feature openssl-rsa");
    // A directory of its own: the builds would replace each other.
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/openssl-rsa");
    let options = ["--features", "openssl-rsa", "--target-dir", target];
    let csrd = build(&[&["build", "--release", "--package", "api"], &options[..]].concat(), "csrd").await?;
    let bench = build(&[&["bench", "--package", "benches", "--bench", "load", "--no-run"], &options[..]].concat(), "load").await?;
    Ok(Build { name: "OpenSSL", csrd, bench })
}

/// Runs a cargo command; the program of this name that it built.
async fn build(command: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(command).args(["--locked", "--message-format", "json", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).stderr(Stdio::inherit());
    let messages = output(&mut cargo).await?;
    let program = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_this = message.pointer("/target/name").and_then(serde_json::Value::as_str) == Some(name);
        message.get("executable").and_then(serde_json::Value::as_str).filter(|_| is_this).map(PathBuf::from)
    });
    program.with_context(|| format!("cargo names no program {name}"))
}
