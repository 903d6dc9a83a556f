//! Signals between processes, by PostgreSQL's NOTIFY: after commits, coalesced, on a connection of its own.

use std::{collections::HashSet, convert::Infallible, future::Future, sync::Arc, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener},
};
use tokio::{sync::mpsc, time::Instant};
use ulid::Ulid;

use super::{Signal, Signals};
use crate::{ids::CustomCsrId, storage::engine::pool_without_durable_commits};

/// The channel. Payloads: `@` and who sends it, `+` for a new job, IDs for changes, separated by commas.
const CHANNEL: &str = "csrd";
/// A payload has less than 8,000 bytes; an ID has 36.
const IDS_A_PAYLOAD: usize = 200;
/// After a lost connection; twice as long each time that it is lost again at once.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Without a notification for this long, the server is asked whether it is still there: a connection that a router or a failover dropped
/// without a word would be silent for ever.
const QUIET: Duration = Duration::from_secs(15);
/// How long the server may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Connections of their own, and who this process is.
#[derive(Clone)]
pub struct Notifications {
    options: PgConnectOptions,
    sender: String,
}

impl Notifications {
    /// Through connections with these options.
    pub fn new(options: PgConnectOptions) -> Self {
        Self { options, sender: format!("@{}", Ulid::generate()) }
    }

    /// One connection. A pool that has one which died in silence is of no use any more, so each has its own.
    fn pool(&self) -> PgPool {
        pool_without_durable_commits(1, &self.options)
    }

    /// Tells the other processes. What is signalled while one notification is under way goes into the next.
    pub async fn send(self, mut signals: mpsc::Receiver<Signal>) {
        let mut pool = self.pool();
        while let Some(first) = signals.recv().await {
            let (mut enqueued, mut changed) = (false, HashSet::new());
            let mut next = Some(first);
            while let Some(signal) = next {
                match signal {
                    Signal::Enqueued => enqueued = true,
                    Signal::Changed(id) => {
                        changed.insert(id);
                    }
                }
                next = if changed.len() < IDS_A_PAYLOAD { signals.try_recv().ok() } else { None };
            }
            let words = [self.sender.clone()].into_iter().chain(enqueued.then(|| "+".to_owned()));
            let payload = words.chain(changed.iter().map(ToString::to_string)).collect::<Vec<_>>().join(",");
            let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&pool);
            // Ticks find what was not told.
            match tokio::time::timeout(ANSWER_TIME, notify).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "others were not notified"),
                Err(_) => {
                    tracing::debug!("others were not notified: no answer in time");
                    pool = self.pool();
                }
            }
        }
    }

    /// Listens to the other processes for as long as this one lives.
    pub async fn receive(self, signals: Arc<Signals>) {
        let mut pause = PAUSE;
        loop {
            let began = Instant::now();
            let Err(error) = self.listen(&signals).await;
            if began.elapsed() > LONGEST_PAUSE {
                pause = PAUSE;
                tracing::warn!(%error, "notifications from other processes were interrupted: ticks stand in for them");
            } else {
                tracing::debug!(%error, "notifications are interrupted");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn listen(&self, signals: &Signals) -> sqlx::Result<Infallible> {
        let pool = self.pool();
        let mut listener = in_time(PgListener::connect_with(&pool)).await?;
        in_time(listener.listen(CHANNEL)).await?;
        // While nobody listened, something may have come.
        signals.receive(Signal::Enqueued);
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => self.pass_on(notification.payload(), signals),
                Ok(Ok(None)) => return Err(sqlx::Error::PoolClosed),
                Ok(Err(error)) => return Err(error),
                Err(_) => in_time(sqlx::query("SELECT 1").execute(&mut listener)).await.map(drop)?,
            }
        }
    }

    /// What this process sent itself it knows already.
    fn pass_on(&self, payload: &str, signals: &Signals) {
        let mut words = payload.split(',').peekable();
        if words.peek() == Some(&self.sender.as_str()) {
            return;
        }
        for word in words {
            match (word, CustomCsrId::parse(word)) {
                ("+", _) => signals.receive(Signal::Enqueued),
                (_, Some(id)) => signals.receive(Signal::Changed(id)),
                (_, None) => {}
            }
        }
    }
}

async fn in_time<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(ANSWER_TIME, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_sent_itself_is_not_counted_twice_and_what_others_sent_is() {
        let (one, other) = (Notifications::new(PgConnectOptions::new()), Notifications::new(PgConnectOptions::new()));
        let signals = Signals::new(None);
        let mut enqueued = signals.enqueued();
        one.pass_on(&format!("{},+", one.sender), &signals);
        assert!(!enqueued.has_changed().unwrap());
        one.pass_on(&format!("{},+", other.sender), &signals);
        assert!(enqueued.has_changed().unwrap());
        enqueued.mark_unchanged();
        one.pass_on("+", &signals);
        assert!(enqueued.has_changed().unwrap(), "the version before names no sender");
    }
}
