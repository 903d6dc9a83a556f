//! What `csrd` is measured against: `cfssl serve`, a bare poem route, the key generation library in a loop.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use poem::{EndpointExt, Response, Route, Server, get, handler, listener::TcpListener, web::Data};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use worker::keys::fastest;

use crate::{
    drive::{Expected, Load, Watched, body_of},
    http,
    postgres::output,
    usage,
};

/// A running peer; it is killed when this is dropped.
pub struct Peer {
    _child: Child,
    pub address: SocketAddr,
    pub watched: Watched,
}

/// `cfssl serve`: no database, no authentication, and the private key in the answer.
pub struct Cfssl {
    pub peer: Peer,
    pub version: String,
}

impl Cfssl {
    /// Starts it, or returns `None` if it is not installed.
    pub async fn start(dir: &Path) -> anyhow::Result<Option<Self>> {
        let Ok(version) = output(Command::new("cfssl").arg("version")).await else { return Ok(None) };
        let version = version.lines().next().unwrap_or_default().trim_start_matches("Version: ").to_owned();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("cfssl");
        command.args(["serve", "-address", "127.0.0.1", "-loglevel", "3", "-port", &port.to_string()]);
        let child = command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let peer = peer(child, SocketAddr::from(([127, 0, 0, 1], port))).await?;
        Ok(Some(Self { peer, version }))
    }

    /// Requests for keys like ours, after one whose answer openssl has read: this API ignores what it does not know, and would
    /// make P-256 keys of a request for RSA that it does not understand.
    pub async fn load(&self, algorithm: &str, bits: u32, connections: usize) -> anyhow::Result<Load> {
        let body = format!(
            r#"{{"CN":"www.acme-widgets.com","hosts":["www.acme-widgets.com","acme-widgets.com"],"key":{{"algo":"{algorithm}","size":{bits}}},"names":[{{"C":"US","ST":"California","L":"San Francisco","O":"Acme Widgets, Inc."}}]}}"#
        );
        let request = http::request("POST", "/api/v1/cfssl/newkey", &[], &body);
        let answer: serde_json::Value = serde_json::from_slice(&body_of(self.peer.address, &request).await?)?;
        let pem = answer.pointer("/result/certificate_request").and_then(serde_json::Value::as_str).context("no CSR from cfssl")?;
        let dir = TempDir::new()?;
        let file = dir.path().join("csr.pem");
        fs::write(&file, pem)?;
        let mut openssl = Command::new("openssl");
        let text = output(openssl.args(["req", "-noout", "-text", "-verify", "-in"]).arg(&file)).await?;
        ensure!(text.contains(&format!("Public-Key: ({bits} bit)")), "cfssl made another key than {algorithm} {bits}:\n{text}");
        ensure!(text.contains("rsaEncryption") == (algorithm == "rsa"), "cfssl made another key than {algorithm} {bits}:\n{text}");
        let expected = Expected { status: 200, contains: Some("BEGIN CERTIFICATE REQUEST") };
        Ok(Load { address: self.peer.address, connections, requests: Arc::new(vec![request]), expected })
    }
}

/// One poem route that answers these bytes, in a child process: this program again.
pub async fn bare_route(body: &Path) -> anyhow::Result<Peer> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.arg("--serve-bare").arg(body).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line).await?;
    peer(child, line.trim().parse()?).await
}

/// What the child process of [`bare_route`] runs.
pub fn serve_bare(body: &Path) -> anyhow::Result<()> {
    #[handler]
    fn answer(Data(body): Data<&Arc<String>>) -> Response {
        Response::builder().content_type("application/json").body(body.as_str().to_owned())
    }
    let body = Arc::new(fs::read_to_string(body)?);
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    println!("127.0.0.1:{port}");
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let route = Route::new().at("/api/v4/zones/:zone/custom_csrs/:id", get(answer)).data(body);
        Ok(Server::new(TcpListener::bind(("127.0.0.1", port))).run(route).await?)
    })
}

/// Keys a second on all cores, and the mean processor time of one in milliseconds.
#[derive(Clone, Copy, Default)]
pub struct KeyLoop {
    pub rate: f64,
    pub mean_ms: f64,
}

impl KeyLoop {
    /// The mean of loops that took the same time.
    #[expect(clippy::cast_precision_loss, reason = "they are a few")]
    pub fn mean(loops: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| loops.iter().map(of).sum::<f64>() / loops.len().max(1) as f64;
        Self { rate: mean(|one| one.rate), mean_ms: mean(|one| one.mean_ms) }
    }
}

/// Runs the loop of a build of this program.
pub async fn key_loop(program: &Path, time: Duration) -> anyhow::Result<KeyLoop> {
    let text = output(Command::new(program).arg("--loop-keys").arg(time.as_secs().to_string())).await?;
    let (rate, mean_ms) = text.trim().split_once(' ').context("the loop's output")?;
    Ok(KeyLoop { rate: rate.parse()?, mean_ms: mean_ms.parse()? })
}

/// What the child process of [`key_loop`] runs: RSA-2048 keys by the library that `csrd` in the same build has them from.
pub fn loop_keys(time: Duration) -> anyhow::Result<()> {
    let cores = crate::report::cores();
    let make = || {
        let (began, mut keys) = (Instant::now(), 0_u32);
        while began.elapsed() < time {
            fastest::rsa_by_library()?;
            keys += 1;
        }
        anyhow::Ok((f64::from(keys), f64::from(keys) / began.elapsed().as_secs_f64()))
    };
    let threads: Vec<anyhow::Result<(f64, f64)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    let (mut keys, mut rate) = (0.0, 0.0);
    for thread in threads {
        let (its_keys, its_rate) = thread?;
        (keys, rate) = (keys + its_keys, rate + its_rate);
    }
    println!("{rate} {}", 1e3 * usage::cpu(std::process::id(), false)?.as_secs_f64() / keys);
    Ok(())
}

async fn peer(child: Child, address: SocketAddr) -> anyhow::Result<Peer> {
    let watched = Watched { processes: vec![child.id().context("the peer ended")?], server: None };
    for _ in 0..100 {
        if http::Connection::open(address).await.is_ok() {
            return Ok(Peer { _child: child, address, watched });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the peer on {address} does not start")
}
