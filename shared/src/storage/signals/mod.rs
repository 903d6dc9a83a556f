//! Who is told of what: workers of new jobs, waiting requests of changes, in this process and, on PostgreSQL, in the others.

mod postgres;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, watch};

pub(super) use self::postgres::Notifications;
use crate::ids::CustomCsrId;

/// Signals that wait to be told to other processes.
pub(super) const OUTBOX: usize = 10_000;

/// Something that others may wait for. It is sent after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A job was enqueued.
    Enqueued,
    /// A custom CSR is no longer pending, or gone.
    Changed(CustomCsrId),
}

/// Passes signals on.
pub struct Signals {
    enqueued: watch::Sender<u64>,
    /// Of the custom CSRs that someone waits for.
    changes: Mutex<HashMap<CustomCsrId, watch::Sender<()>>>,
    /// To the other processes, where there are any.
    others: Option<mpsc::Sender<Signal>>,
}

impl Signals {
    /// Signals within this process, and to the others through `others`.
    #[must_use]
    pub fn new(others: Option<mpsc::Sender<Signal>>) -> Self {
        Self { enqueued: watch::Sender::new(0), changes: Mutex::default(), others }
    }

    /// Tells everyone.
    pub fn send(&self, signal: Signal) {
        self.receive(signal);
        if let Some(others) = &self.others {
            // Without a receiver this process is about to end; beyond its bound the database is away, and ticks find what was not told.
            let _ = others.try_send(signal);
        }
    }

    /// Tells this process, of its own signals and of those of others.
    pub fn receive(&self, signal: Signal) {
        match signal {
            Signal::Enqueued => self.enqueued.send_modify(|count| *count = count.wrapping_add(1)),
            Signal::Changed(id) => {
                if let Some(change) = self.changes().get(&id) {
                    change.send_replace(());
                }
            }
        }
    }

    /// Changes whenever a job was enqueued.
    #[must_use]
    pub fn enqueued(&self) -> watch::Receiver<u64> {
        self.enqueued.subscribe()
    }

    /// Changes of this custom CSR from now on.
    #[must_use]
    pub fn changes_of(&self, id: CustomCsrId) -> Changes<'_> {
        let change = self.changes().entry(id).or_default().subscribe();
        Changes { signals: self, id, change: Some(change) }
    }

    fn changes(&self) -> MutexGuard<'_, HashMap<CustomCsrId, watch::Sender<()>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of the changes of one custom CSR for as long as it lives.
pub struct Changes<'a> {
    signals: &'a Signals,
    id: CustomCsrId,
    /// Until this is dropped.
    change: Option<watch::Receiver<()>>,
}

impl Changes<'_> {
    /// Waits for the next change since the last one that this told of.
    pub async fn next(&mut self) {
        if let Some(change) = &mut self.change {
            // Its sender goes only after the last receiver.
            let _ = change.changed().await;
        }
    }
}

impl Drop for Changes<'_> {
    fn drop(&mut self) {
        let mut changes = self.signals.changes();
        // Under the lock: of two that go at once, the second has to see that the first is gone.
        self.change = None;
        if changes.get(&self.id).is_some_and(|change| change.receiver_count() == 0) {
            changes.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::now;

    async fn told(changes: &mut Changes<'_>) -> bool {
        tokio::time::timeout(Duration::ZERO, changes.next()).await.is_ok()
    }

    #[tokio::test]
    async fn whoever_waits_for_a_custom_csr_hears_of_it_alone_and_of_nothing_from_before() {
        let signals = Signals::new(None);
        let (one, other) = (CustomCsrId::new(now()), CustomCsrId::new(now()));
        signals.send(Signal::Changed(one));
        let (mut changes, mut again, mut of_other) = (signals.changes_of(one), signals.changes_of(one), signals.changes_of(other));
        assert!(!told(&mut changes).await);
        signals.send(Signal::Changed(one));
        signals.send(Signal::Changed(one));
        assert!(told(&mut changes).await);
        assert!(!told(&mut changes).await, "two changes before a look are one");
        assert!(!told(&mut of_other).await);
        drop(changes);
        assert!(told(&mut again).await, "one that goes leaves the others theirs");
        drop((again, of_other));
        assert!(signals.changes().is_empty());
    }
}
