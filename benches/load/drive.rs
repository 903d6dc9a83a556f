//! Load: closed loops, bursts and paced requests, all from one thread.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{http::Connection, usage};

/// Many connections. Each sends a request, waits for the answer and sends the next one.
#[derive(Clone)]
pub struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    /// Connection `i` sends the `i`th, all over again from the first where there are fewer.
    pub requests: Arc<Vec<Vec<u8>>>,
    pub expected: Expected,
}

/// Any other answer is a failure, and failures are reported.
#[derive(Clone, Copy)]
pub struct Expected {
    pub status: u16,
    pub contains: Option<&'static str>,
}

impl Expected {
    pub const OK: Self = Self { status: 200, contains: None };
    pub const CREATED: Self = Self { status: 201, contains: None };
    pub const ACTIVE: Self = Self { status: 201, contains: Some("\"status\":\"active\"") };
}

/// Sorted.
#[derive(Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn new(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    pub fn at(&self, percent: usize) -> Duration {
        let index = self.0.len() * percent / 100;
        self.0.get(index.min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub fn p50_p99(&self) -> (Duration, Duration) {
        (self.at(50), self.at(99))
    }
}

/// The processes whose processor time and memory are measured.
#[derive(Clone, Default)]
pub struct Watched {
    pub processes: Vec<u32>,
    /// The database server with its children.
    pub server: Option<u32>,
}

/// Processor time since the beginning.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    pub processes: Duration,
    pub server: Duration,
    pub generator: Duration,
}

impl Watched {
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let mut processes = Duration::ZERO;
        for pid in &self.processes {
            processes += usage::cpu(*pid, false)?;
        }
        let server = self.server.map(|pid| usage::cpu(pid, true)).transpose()?.unwrap_or_default();
        Ok(Cpu { processes, server, generator: usage::cpu(std::process::id(), false)? })
    }

    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        self.processes.iter().map(|pid| Ok(usage::memory(*pid)?.1)).sum()
    }
}

impl Cpu {
    fn and(self, later: Self) -> Self {
        Self {
            processes: self.processes + later.processes,
            server: self.server + later.server,
            generator: self.generator + later.generator,
        }
    }

    pub fn since(self, earlier: Self) -> Self {
        Self {
            processes: self.processes.saturating_sub(earlier.processes),
            // A backend that ended just now is counted when its parent has noticed.
            server: self.server.saturating_sub(earlier.server),
            generator: self.generator.saturating_sub(earlier.generator),
        }
    }
}

/// The result of a run.
#[derive(Clone, Default)]
pub struct Figures {
    pub done: usize,
    pub failures: usize,
    pub elapsed: Duration,
    pub latencies: Latencies,
    pub cpu: Cpu,
    pub peak_bytes: u64,
}

impl Figures {
    /// Both runs as one.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            done: self.done + later.done,
            failures: self.failures + later.failures,
            elapsed: self.elapsed + later.elapsed,
            latencies: Latencies::new([self.latencies.0, later.latencies.0].concat()),
            cpu: self.cpu.and(later.cpu),
            peak_bytes: self.peak_bytes.max(later.peak_bytes),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "no run is that long")]
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Microseconds of this processor time for each that was done.
    #[expect(clippy::cast_precision_loss, reason = "no run is that long")]
    pub fn micros_each(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.done.max(1) as f64
    }
}

impl Load {
    fn request(&self, connection: usize) -> Vec<u8> {
        self.requests[connection % self.requests.len()].clone()
    }

    /// Runs for `window` after `warm_up`; what is answered within the window counts.
    pub async fn run(&self, warm_up: Duration, window: Duration, watched: &Watched) -> anyhow::Result<Figures> {
        let begin = Instant::now() + warm_up;
        let end = begin + window;
        let mut tasks = JoinSet::new();
        for index in 0..self.connections {
            let (load, mut connection) = (self.clone(), Connection::open(self.address).await?);
            tasks.spawn(async move {
                let (request, mut latencies, mut failures) = (load.request(index), Vec::new(), 0);
                loop {
                    let asked = Instant::now();
                    if asked >= end {
                        return anyhow::Ok((latencies, failures));
                    }
                    let good = load.expected.met(&mut connection, &request).await?;
                    let answered = Instant::now();
                    if !good {
                        failures += 1;
                    } else if answered >= begin && answered < end {
                        latencies.push(answered - asked);
                    }
                }
            });
        }
        sleep_until(begin).await;
        let before = watched.cpu()?;
        sleep_until(end).await;
        let cpu = watched.cpu()?.since(before);
        let (mut all, mut failures) = (Vec::new(), 0);
        while let Some(task) = tasks.join_next().await {
            let (latencies, failed) = task??;
            all.extend(latencies);
            failures += failed;
        }
        let peak_bytes = watched.peak_bytes()?;
        Ok(Figures { done: all.len(), failures, elapsed: window, latencies: Latencies::new(all), cpu, peak_bytes })
    }

    /// Sends `count` requests in all, as fast as possible.
    pub async fn times(&self, count: usize, watched: &Watched) -> anyhow::Result<Figures> {
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(Connection::open(self.address).await?);
        }
        let (mut tasks, before, began) = (JoinSet::new(), watched.cpu()?, Instant::now());
        for (index, mut connection) in connections.into_iter().enumerate() {
            let (load, share) = (self.clone(), count / self.connections + usize::from(index < count % self.connections));
            tasks.spawn(async move {
                let (request, mut latencies) = (load.request(index), Vec::with_capacity(share));
                for _ in 0..share {
                    let asked = Instant::now();
                    if load.expected.met(&mut connection, &request).await? {
                        latencies.push(asked.elapsed());
                    }
                }
                anyhow::Ok(latencies)
            });
        }
        let mut all = Vec::new();
        while let Some(task) = tasks.join_next().await {
            all.extend(task??);
        }
        let (elapsed, cpu, peak_bytes) = (began.elapsed(), watched.cpu()?.since(before), watched.peak_bytes()?);
        Ok(Figures { done: all.len(), failures: count - all.len(), elapsed, latencies: Latencies::new(all), cpu, peak_bytes })
    }
}

impl Expected {
    async fn met(self, connection: &mut Connection, request: &[u8]) -> anyhow::Result<bool> {
        let answer = connection.ask(request).await?;
        Ok(answer.status == self.status && self.contains.is_none_or(|text| answer.contains(text)))
    }
}

/// One request at a time, each at its moment whether or not the one before was late: a latency counts from that moment.
pub async fn paced(address: SocketAddr, request: &[u8], expected: Expected, interval: Duration, count: usize) -> anyhow::Result<Latencies> {
    let mut connection = Connection::open(address).await?;
    let (mut moment, mut latencies) = (Instant::now(), Vec::with_capacity(count));
    for _ in 0..count {
        sleep_until(moment).await;
        // If nothing is late, the timer's inaccuracy of a millisecond is not counted.
        let asked = if moment.elapsed() < Duration::from_millis(2) { Instant::now() } else { moment };
        ensure!(expected.met(&mut connection, request).await?, "an unexpected answer, where each counts");
        latencies.push(asked.elapsed());
        moment += interval;
    }
    Ok(Latencies::new(latencies))
}

/// The body of one answer.
pub async fn body_of(address: SocketAddr, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut connection = Connection::open(address).await?;
    let answer = connection.ask(request).await?;
    ensure!(matches!(answer.status, 200 | 201), "status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
    if answer.chunked { crate::http::unchunked(answer.body).context("the answer") } else { Ok(answer.body.to_vec()) }
}
