//! Faults, one after the other.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{
    Shared,
    processes::{APIS, FREEZE, STEADY, WORKERS},
};
use crate::service::Process;

/// What goes wrong, in this order, again and again.
#[derive(Clone, Copy)]
enum Fault {
    KillWorker,
    CutConnections,
    StopWorker,
    KillApi,
    RestartServer,
    FreezeWorker,
    EndSessions,
    StopApi,
    CrashServer,
}

impl Fault {
    const ALL: [Self; 9] = [
        Self::KillWorker,
        Self::CutConnections,
        Self::StopWorker,
        Self::KillApi,
        Self::RestartServer,
        Self::FreezeWorker,
        Self::EndSessions,
        Self::StopApi,
        Self::CrashServer,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "a worker killed (SIGKILL)",
            Self::CutConnections => "all connections to the database cut",
            Self::StopWorker => "a worker stopped (SIGTERM)",
            Self::KillApi => "an API process killed (SIGKILL)",
            Self::RestartServer => "PostgreSQL restarted",
            Self::FreezeWorker => "a worker frozen beyond --orphan-after",
            Self::EndSessions => "all sessions ended (pg_terminate_backend)",
            Self::StopApi => "an API process stopped (SIGTERM)",
            Self::CrashServer => "PostgreSQL crashed (SIGQUIT), and recovered",
        }
    }
}

pub struct Faults {
    /// In the order of the fleet.
    processes: Vec<Process>,
    shared: Arc<Shared>,
    pause: Duration,
    /// The worker that is next.
    victim: usize,
}

impl Faults {
    pub fn new(processes: Vec<Process>, shared: Arc<Shared>, time: Duration) -> Self {
        let pause = (time / 180).clamp(Duration::from_secs(2), Duration::from_secs(20));
        Self { processes, shared, pause, victim: 0 }
    }

    /// Faults until the end; then the processes, all of which run.
    pub async fn run(mut self, end: Instant) -> anyhow::Result<Vec<Process>> {
        for fault in Fault::ALL.into_iter().cycle() {
            sleep(self.pause.min(end.saturating_duration_since(Instant::now()))).await;
            if Instant::now() >= end {
                break;
            }
            self.start_what_ended().await?;
            self.make(fault).await.with_context(|| format!("after {}", fault.name()))?;
            *self.shared.ledger().faults.entry(fault.name()).or_default() += 1;
        }
        self.start_what_ended().await?;
        Ok(self.processes)
    }

    async fn make(&mut self, fault: Fault) -> anyhow::Result<()> {
        let (server, _) = self.shared.fleet.installation().server()?;
        match fault {
            Fault::KillWorker | Fault::StopWorker => {
                let worker = self.next_worker();
                self.replace(worker, matches!(fault, Fault::StopWorker)).await
            }
            Fault::KillApi | Fault::StopApi => {
                let api = APIS.into_iter().find(|index| !STEADY.contains(index)).context("no API process that may be ended")?;
                self.replace(api, matches!(fault, Fault::StopApi)).await
            }
            Fault::FreezeWorker => {
                let worker = self.next_worker();
                self.processes[worker].signal(Signal::STOP)?;
                sleep(FREEZE).await;
                self.processes[worker].signal(Signal::CONT)
            }
            Fault::CutConnections => {
                self.shared.fleet.cut_connections();
                Ok(())
            }
            Fault::EndSessions => {
                let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'csrd'";
                server.sql("postgres", others).await.map(drop)
            }
            Fault::RestartServer => server.restart().await,
            Fault::CrashServer => server.crash().await,
        }
    }

    fn next_worker(&mut self) -> usize {
        let mortal: Vec<_> = WORKERS.into_iter().filter(|index| !STEADY.contains(index)).collect();
        self.victim += 1;
        mortal[self.victim % mortal.len()]
    }

    async fn replace(&mut self, index: usize, in_order: bool) -> anyhow::Result<()> {
        let process = self.processes.remove(index);
        if in_order {
            // Status 1 says that something was cut off, which a client may do by leaving; nothing is lost by it.
            process.terminate().await?;
        } else {
            process.kill().await?;
        }
        let started = self.shared.fleet.start(index).await?;
        self.processes.insert(index, started);
        Ok(())
    }

    /// None of them ends by itself, whatever happens to the database.
    async fn start_what_ended(&mut self) -> anyhow::Result<()> {
        for index in 0..self.processes.len() {
            if let Some(status) = self.processes[index].ended()? {
                self.shared.ledger().unexpected(format!("process {index} of the fleet ended by itself: {status}"));
                self.processes[index] = self.shared.fleet.start(index).await?;
            }
        }
        Ok(())
    }
}
