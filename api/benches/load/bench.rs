//! What all parts share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

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
    pub has_pool: bool,
    pub report: Report,
    own: Build,
    openssl: Option<Build>,
    looked: bool,
}

impl Bench {
    pub async fn start(quick: bool, dir: PathBuf) -> anyhow::Result<Self> {
        let csrd = PathBuf::from(env!("CARGO_BIN_EXE_csrd"));
        let postgres = Arc::new(Postgres::start(&dir).await?);
        let has_pool = output(Command::new(&csrd).args(["serve", "--help"])).await?.contains("--key-pool-size");
        let own = Build { name: "aws-lc-rs", csrd, bench: std::env::current_exe()? };
        let mut report = Report::default();
        report.versions.push(format!("PostgreSQL {}", postgres.version().await?));
        if !has_pool {
            report.note("this csrd has no key pool: what is to be measured with a filled one is measured without");
        }
        Ok(Self { quick, dir, postgres, has_pool, report, own, openssl: None, looked: false })
    }

    /// The time for a run, given that of a full one.
    pub fn secs(&self, full: u64) -> Duration {
        Duration::from_secs(if self.quick { full.div_ceil(10).max(2) } else { full })
    }

    /// The number of things to do, given that of a full run.
    pub fn count(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// Every build: ours, and the one with RSA by OpenSSL where there is such a feature.
    pub async fn builds(&mut self) -> anyhow::Result<Vec<Build>> {
        if !self.looked {
            self.looked = true;
            self.openssl = openssl_build().await?;
            if self.openssl.is_none() {
                self.report.note("RSA by OpenSSL is not built: csrd has no feature `openssl-rsa`");
            }
        }
        Ok([self.own.clone()].into_iter().chain(self.openssl.clone()).collect())
    }

    /// The build that makes RSA keys fastest.
    pub async fn rsa_build(&mut self) -> anyhow::Result<Build> {
        let mut builds = self.builds().await?;
        builds.pop().context("no build")
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
        let pool_args: &[&str] = if self.has_pool { &["--key-pool-size", &size] } else { &[] };
        let process = installation.serve(&[pool_args, args].concat()).await?;
        if self.has_pool && pool > 0 {
            installation.until_pool_holds(pool.into()).await?;
        }
        Ok(process)
    }

    pub const fn with_pool(&self) -> &'static str {
        if self.has_pool { "filled pool" } else { "no pool in this csrd" }
    }
}

async fn openssl_build() -> anyhow::Result<Option<Build>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    if !fs::read_to_string(&manifest)?.contains("openssl-rsa") {
        return Ok(None);
    }
    println!("building csrd with the feature openssl-rsa");
    // A directory of its own: the builds would replace each other.
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/openssl-rsa");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["bench", "--locked", "--bench", "load", "--no-run", "--features", "openssl-rsa", "--message-format", "json"]);
    cargo.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(&target).stderr(std::process::Stdio::inherit());
    let messages = output(&mut cargo).await?;
    let bench = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_this = message.pointer("/target/name").and_then(serde_json::Value::as_str) == Some("load");
        message.get("executable").and_then(serde_json::Value::as_str).filter(|_| is_this).map(PathBuf::from)
    });
    let bench = bench.context("cargo names no benchmark")?;
    Ok(Some(Build { name: "OpenSSL", csrd: target.join("release/csrd"), bench }))
}
