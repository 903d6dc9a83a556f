//! The operator's command after an export, which has the terminator read the new files.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use crate::cli::settings::harmless_variables;

/// How long a command that was told to end may take to do so.
const END_TIME: Duration = Duration::from_secs(5);

/// Runs a command by `sh -c` to its end, however long that takes.
///
/// Its environment has nothing of csrd's settings, which may hold a password. It has a process group of its own: what ends csrd ends
/// everything that the command started.
pub async fn run(command: &str, certificate_id: &str, directory: &Path) -> anyhow::Result<Ended> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).process_group(0).env_clear().envs(harmless_variables());
    shell.env("CSRD_CERTIFICATE_ID", certificate_id).env("CSRD_DIR", std::path::absolute(directory)?);
    let mut child = shell.spawn().context("--exec: sh cannot be run")?;
    let group = Pid::from_child(&child);
    let (send, mut ended) = oneshot::channel();
    thread::Builder::new().name("exec".to_owned()).spawn(move || send.send(child.wait()))?;
    tokio::select! {
        status = &mut ended => return Ok(Ended(status??)),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Not SIGINT, which a shell has its background commands ignore.
    end(group, Signal::TERM)?;
    if timeout(END_TIME, ended).await.is_err() {
        end(group, Signal::KILL)?;
    }
    bail!("--exec: the command was interrupted; the certificate is in place, and the next export runs the command again")
}

fn end(group: Pid, how: Signal) -> anyhow::Result<()> {
    match kill_process_group(group, how) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(anyhow!(io::Error::from(error)).context("--exec: the command cannot be ended")),
    }
}

/// A command that came to its end.
pub struct Ended(std::process::ExitStatus);

impl Ended {
    /// Refuses any end but success.
    pub fn check(&self) -> anyhow::Result<()> {
        match (self.0.code(), self.0.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => {
                bail!(
                    "--exec: the command ended with exit status {code}; the certificate is in place, and the next export runs the command again"
                )
            }
            (None, signal) => bail!(
                "--exec: the command was ended by signal {}; the certificate is in place, and the next export runs the command again",
                signal.unwrap_or_default()
            ),
        }
    }
}
