//! Waiting until a custom CSR is no longer pending.

use std::time::Duration;

use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    client::{Client, Request},
    failure::{Class, Failure},
};

/// The longest that one request waits.
const REQUEST_SECS: u64 = 30;
/// Between two requests if the service has no place for one that waits.
const PAUSE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// How long custom CSRs are waited for, from now.
pub struct Wait {
    bound: Duration,
    until: Instant,
    /// One line on a terminal, nothing elsewhere.
    progress: ProgressBar,
}

impl Wait {
    /// Begins to wait.
    pub fn begin(bound: Duration) -> Self {
        let progress = ProgressBar::new_spinner();
        progress.enable_steady_tick(TICK);
        Self { bound, until: Instant::now() + bound, progress }
    }

    /// The custom CSR as it was last seen, and what is wrong with it: it failed, it is still pending, or it cannot be asked for.
    pub async fn follow(&self, client: &Client, seen: Value) -> (Value, Option<Failure>) {
        let mut csr = seen;
        let outcome = self.decide(client, &mut csr).await;
        (csr, outcome.err())
    }

    /// Prints beside the line on the terminal.
    pub fn aside(&self, print: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        self.progress.suspend(print)
    }

    async fn decide(&self, client: &Client, csr: &mut Value) -> Result<(), Failure> {
        let id = csr["id"].as_str().unwrap_or_default().to_owned();
        let not_made = |line: String| Failure::new(Class::NotMade, line);
        loop {
            match csr["status"].as_str() {
                Some("pending") => {}
                Some("failed") => {
                    let error = csr["error"].as_str().unwrap_or("no reason is given");
                    return Err(not_made(format!("custom CSR {id} failed: {error}; csrctl rekey {id} makes another one")));
                }
                _ => return Ok(()),
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let bound = humantime::format_duration(self.bound);
                return Err(not_made(format!("custom CSR {id} is still pending after {bound}: csrctl watch {id} goes on waiting")));
            }
            self.progress.set_message(format!("waiting for custom CSR {id}"));
            let request = Request::new(Method::GET, ["custom_csrs", &id]).prefer_wait(left.as_secs().clamp(1, REQUEST_SECS));
            // A service that is away takes until its repetitions are over, a little longer than the bound.
            let answer = client.send(&request).await?;
            *csr = answer.result;
            if !answer.has_waited {
                tokio::time::sleep(PAUSE.min(left)).await;
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}
