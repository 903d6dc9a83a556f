//! Keys for tokens that change while the service runs.

use std::{sync::Arc, time::Duration};

use api::auth::{Authenticator, KeySource};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two looks at the file. By its content, so that a file system without fine times and a swapped link are noticed too.
const LOOK: Duration = Duration::from_secs(5);

/// Signals that end a process unless they are taken, and that say nothing about its end.
pub struct Hangups(Signal);

impl Hangups {
    /// Takes SIGHUP, and ignores SIGUSR1, SIGUSR2 and SIGALRM, from now on.
    pub fn take() -> std::io::Result<Self> {
        for kind in [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::alarm()] {
            // Once taken, a signal stays taken.
            drop(signal(kind)?);
        }
        signal(SignalKind::hangup()).map(Self)
    }

    /// Loads the keys for tokens anew when their file changes, and at once on SIGHUP. A broken file is an error in the log, once, and the
    /// keys stay.
    pub async fn reload(mut self, authenticator: Arc<Authenticator>, source: Option<KeySource>) {
        let mut told: Option<String> = None;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_hangup = tokio::select! {
                _ = look.tick() => false,
                _ = self.0.recv() => true,
            };
            let Some(source) = &source else { continue };
            match authenticator.reload_if_changed(source) {
                Ok(changed) => {
                    told = None;
                    if let Some(keys) = changed {
                        tracing::info!(keys, "keys for tokens were loaded anew, and the tokens that the former ones verified forgotten");
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    if is_hangup || told.as_ref() != Some(&text) {
                        tracing::error!(error = text, "the keys for tokens stay as they are");
                    }
                    told = Some(text);
                }
            }
        }
    }

    /// Reads SIGHUP in a process that has nothing to load anew.
    pub async fn ignore(mut self) {
        while self.0.recv().await.is_some() {
            tracing::info!("SIGHUP: there is nothing to load anew here");
        }
    }
}
