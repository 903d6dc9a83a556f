//! Signals between processes, by PostgreSQL's NOTIFY: after commits, coalesced, on a connection of its own.

use std::{
    collections::HashSet,
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    PgConnection, PgExecutor,
    postgres::{PgConnectOptions, PgListener},
};
use tokio::{sync::mpsc, time::Instant};
use ulid::Ulid;

use super::{Signal, Signals};
use crate::{
    ids::CustomCsrId,
    storage::engine::{connect_without_durable_commits, pool_without_durable_commits},
};

/// The channel. Payloads: `@` and who sends it, `+` for a new job, IDs for changes, separated by commas.
const CHANNEL: &str = "csrd";
/// A payload has less than 8,000 bytes; an ID has 36.
const IDS_A_PAYLOAD: usize = 200;
/// After a lost connection; twice as long each time that it is lost again at once.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often a process tells the others, on the connection on which it listens, that it does. The answer says that the server is still there: a
/// connection that a router or a failover dropped without a word would be silent for ever.
const PRESENCE: Duration = Duration::from_secs(5);
/// A process that heard of no other for this long is alone and notifies nobody: for the server, a notification is as much work as a write.
const ALONE: Duration = Duration::from_secs(16);
/// How long the server may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Likewise on a connection that was used before, which may have died without a word.
const USED_TIME: Duration = Duration::from_secs(1);

/// Connections of their own, and who this process is.
#[derive(Clone)]
pub struct Notifications {
    options: PgConnectOptions,
    sender: String,
    /// When another process was last heard of, or could have spoken unheard.
    others: Arc<Mutex<Instant>>,
}

impl Notifications {
    /// Through connections with these options.
    pub fn new(options: PgConnectOptions) -> Self {
        Self { options, sender: format!("@{}", Ulid::generate()), others: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Tells the other processes, if there are any. What is signalled while one notification is under way goes into the next.
    pub async fn send(self, mut signals: mpsc::Receiver<Signal>) {
        let mut connection = None;
        while let Some(first) = signals.recv().await {
            if self.is_alone() {
                continue;
            }
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
            // Ticks find what was not told.
            if let Err(error) = in_time(self.notify(&mut connection, &payload)).await {
                tracing::debug!(%error, "others were not notified");
            }
        }
    }

    fn others(&self) -> MutexGuard<'_, Instant> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hears_of_others(&self) {
        *self.others() = Instant::now();
    }

    fn is_alone(&self) -> bool {
        self.others().elapsed() > ALONE
    }

    /// Notifies on a connection that is kept for the next time. If it broke meanwhile, a fresh one takes its place.
    async fn notify(&self, connection: &mut Option<PgConnection>, payload: &str) -> sqlx::Result<()> {
        if let Some(used) = connection.take()
            && let Ok(Ok(used)) = tokio::time::timeout(USED_TIME, notified(used, payload)).await
        {
            *connection = Some(used);
            return Ok(());
        }
        let fresh = connect_without_durable_commits(&self.options).await?;
        *connection = Some(notified(fresh, payload).await?);
        Ok(())
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
        let pool = pool_without_durable_commits(1, &self.options);
        let mut listener = in_time(PgListener::connect_with(&pool)).await?;
        in_time(listener.listen(CHANNEL)).await?;
        // While nobody listened, something may have come, and another process too.
        signals.receive(Signal::Enqueued);
        self.hears_of_others();
        let mut presence = tokio::time::interval(PRESENCE);
        loop {
            tokio::select! {
                received = listener.try_recv() => match received? {
                    Some(notification) => self.pass_on(notification.payload(), signals),
                    None => return Err(sqlx::Error::PoolClosed),
                },
                _ = presence.tick() => in_time(notify(&mut listener, &self.sender)).await?,
            }
        }
    }

    /// What this process sent itself it knows already.
    fn pass_on(&self, payload: &str, signals: &Signals) {
        let mut words = payload.split(',').peekable();
        if words.peek() == Some(&self.sender.as_str()) {
            return;
        }
        self.hears_of_others();
        for word in words {
            match (word, CustomCsrId::parse(word)) {
                ("+", _) => signals.receive(Signal::Enqueued),
                (_, Some(id)) => signals.receive(Signal::Changed(id)),
                (_, None) => {}
            }
        }
    }
}

/// Notifies, and returns the connection if it lives.
async fn notified(mut connection: PgConnection, payload: &str) -> sqlx::Result<PgConnection> {
    notify(&mut connection, payload).await?;
    Ok(connection)
}

async fn notify<'c>(connection: impl PgExecutor<'c>, payload: &str) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(connection).await.map(drop)
}

async fn in_time<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(ANSWER_TIME, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        storage::{Location, signals::OUTBOX},
        testing::{TestDatabase, now},
    };

    #[tokio::test]
    async fn a_process_that_is_alone_notifies_nobody_until_another_one_listens() {
        let test = TestDatabase::new().await;
        let Location::Postgres(options) = &test.location else { return };
        // It would be heard as another process.
        test.database.close().await;
        let [one, other] = [(); 2].map(|()| Notifications::new(options.as_ref().clone()));
        let listening = Arc::new(Signals::new(None));
        let mut began = listening.enqueued();
        let receive = tokio::spawn(one.clone().receive(Arc::clone(&listening)));
        began.changed().await.unwrap();
        let mut heard = in_time(PgListener::connect_with(&pool_without_durable_commits(1, options))).await.unwrap();
        heard.listen(CHANNEL).await.unwrap();
        assert!(!one.is_alone(), "others may be there that were not heard yet");
        *one.others() -= ALONE + Duration::from_secs(1);
        let (signals, outbox) = mpsc::channel(OUTBOX);
        let send = tokio::spawn(one.clone().send(outbox));
        let (untold, told) = (CustomCsrId::new(now()), CustomCsrId::new(now()));
        signals.send(Signal::Changed(untold)).await.unwrap();
        while signals.capacity() < OUTBOX {
            tokio::task::yield_now().await;
        }
        let listen = tokio::spawn(other.receive(Arc::new(Signals::new(None))));
        while one.is_alone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        signals.send(Signal::Changed(told)).await.unwrap();
        loop {
            let payload = heard.recv().await.unwrap().payload().to_owned();
            assert!(!payload.contains(&untold.to_string()), "{payload}");
            if payload.contains(&told.to_string()) {
                break;
            }
        }
        for task in [receive, listen, send] {
            task.abort();
        }
    }

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
