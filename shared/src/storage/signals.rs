//! Who is told of what: workers of new jobs, waiting requests of changes, in this process and, on PostgreSQL, in the others.

use tokio::sync::{broadcast, mpsc, watch};

use crate::ids::CustomCsrId;

/// Changes that a slow listener may be behind before it has to look for itself.
const CHANGES_KEPT: usize = 1_024;

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
    changed: broadcast::Sender<CustomCsrId>,
    /// To the other processes, where there are any.
    others: Option<mpsc::UnboundedSender<Signal>>,
}

impl Signals {
    /// Signals within this process, and to the others through `others`.
    #[must_use]
    pub fn new(others: Option<mpsc::UnboundedSender<Signal>>) -> Self {
        Self { enqueued: watch::Sender::new(0), changed: broadcast::Sender::new(CHANGES_KEPT), others }
    }

    /// Tells everyone.
    pub fn send(&self, signal: Signal) {
        self.receive(signal);
        if let Some(others) = &self.others {
            // Without a receiver this process is about to end.
            let _ = others.send(signal);
        }
    }

    /// Tells this process, of its own signals and of those of others.
    pub fn receive(&self, signal: Signal) {
        match signal {
            Signal::Enqueued => self.enqueued.send_modify(|count| *count = count.wrapping_add(1)),
            Signal::Changed(id) => {
                // Nobody waits: nobody is told.
                let _ = self.changed.send(id);
            }
        }
    }

    /// Changes whenever a job was enqueued.
    #[must_use]
    pub fn enqueued(&self) -> watch::Receiver<u64> {
        self.enqueued.subscribe()
    }

    /// The IDs of custom CSRs that changed.
    #[must_use]
    pub fn changed(&self) -> broadcast::Receiver<CustomCsrId> {
        self.changed.subscribe()
    }
}
