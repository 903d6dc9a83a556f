//! Signals between processes, by PostgreSQL's NOTIFY: after commits, coalesced, on a connection of its own.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::mpsc;

use super::signals::{Signal, Signals};
use crate::ids::CustomCsrId;

/// The channel. Payloads: `+` for a new job, IDs for changes, separated by commas.
const CHANNEL: &str = "csrd";
/// A payload has less than 8,000 bytes; an ID has 36.
const IDS_A_PAYLOAD: usize = 200;
/// After a lost connection.
const PAUSE: Duration = Duration::from_millis(500);

/// Tells the other processes. What is signalled while one notification is under way goes into the next.
pub(super) async fn send(pool: PgPool, mut signals: mpsc::UnboundedReceiver<Signal>) {
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
        let words = enqueued.then(|| "+".to_owned()).into_iter().chain(changed.iter().map(ToString::to_string));
        let payload = words.collect::<Vec<_>>().join(",");
        let sent = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&pool).await;
        if let Err(error) = sent {
            // Ticks find what was not told.
            tracing::debug!(%error, "others were not notified");
        }
    }
}

/// Listens to the other processes for as long as this one lives.
pub(super) async fn receive(pool: PgPool, signals: Arc<Signals>) {
    loop {
        if let Err(error) = listen(&pool, &signals).await {
            tracing::debug!(%error, "notifications are interrupted");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(pool: &PgPool, signals: &Signals) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    // While nobody listened, something may have come.
    signals.receive(Signal::Enqueued);
    while let Some(notification) = listener.try_recv().await? {
        for word in notification.payload().split(',') {
            match (word, CustomCsrId::parse(word)) {
                ("+", _) => signals.receive(Signal::Enqueued),
                (_, Some(id)) => signals.receive(Signal::Changed(id)),
                (_, None) => {}
            }
        }
    }
    Ok(())
}
