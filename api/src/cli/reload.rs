//! Keys for tokens that change while the service runs.

use std::{sync::Arc, time::Duration};

use api::auth::{Authenticator, KeyError, KeySource};
use shared::outbound::{Outbound, Url};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two looks at the file. By its content, so that a file system without fine times and a swapped link are noticed too.
const LOOK: Duration = Duration::from_secs(5);
/// Between two fetches while there are no keys at all.
const RETRY: Duration = Duration::from_secs(2);
/// What a JWK set is called (RFC 7517, 8.5); some send it as plain JSON.
const ACCEPT: &str = "application/jwk-set+json, application/json";

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
        let mut told = Told::default();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_hangup = tokio::select! {
                _ = look.tick() => false,
                _ = self.0.recv() => true,
            };
            let Some(source) = &source else { continue };
            told.tell(authenticator.reload_if_changed(source), is_hangup, false);
        }
    }

    /// Fetches the keys for tokens: now, at this interval, when a token names an unknown one, and at once on SIGHUP. On an error the keys
    /// stay.
    pub async fn refetch(mut self, authenticator: Arc<Authenticator>, url: Url, outbound: Outbound, refresh: Duration) {
        let source = KeySource::JwksUrl(url.clone());
        let (mut told, mut is_hangup) = (Told::default(), false);
        loop {
            let is_first = authenticator.waits_for_keys().is_some();
            let fetched = authenticator.refetch(&source, outbound.get(&url, ACCEPT)).await;
            told.tell(fetched, is_hangup, is_first);
            let pause = if authenticator.waits_for_keys().is_some() { RETRY.min(refresh) } else { refresh };
            is_hangup = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = authenticator.asked() => false,
                _ = self.0.recv() => true,
            };
        }
    }
}

const FETCHED: &str = "keys for tokens were fetched";
const REPLACED: &str = "keys for tokens were loaded anew, and the tokens that the former ones verified forgotten";
const NONE_YET: &str = "there are no keys for tokens yet";
const KEPT: &str = "the keys for tokens stay as they are";

/// The fault that the log told last: the same one is told once, and again to whoever asks by SIGHUP.
#[derive(Default)]
pub struct Fault(Option<String>);

impl Fault {
    /// Whether there was one at the last look.
    pub const fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Forgets it: it was mended.
    pub fn mended(&mut self) {
        self.0 = None;
    }

    /// Remembers this one; whether the log is to tell it.
    pub fn is_news(&mut self, text: &str, is_hangup: bool) -> bool {
        let is_known = self.0.as_deref() == Some(text);
        if !is_known {
            self.0 = Some(text.to_owned());
        }
        is_hangup || !is_known
    }
}

/// What the log said last of the keys.
#[derive(Default)]
struct Told(Fault);

impl Told {
    fn tell(&mut self, loaded: Result<Option<usize>, KeyError>, is_hangup: bool, is_first: bool) {
        match loaded {
            Ok(changed) => {
                self.0.mended();
                if let Some(keys) = changed {
                    let what = if is_first { FETCHED } else { REPLACED };
                    tracing::info!(keys, "{what}");
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.0.is_news(&text, is_hangup) {
                    tracing::error!(error = text, "{}", if is_first { NONE_YET } else { KEPT });
                }
            }
        }
    }
}
