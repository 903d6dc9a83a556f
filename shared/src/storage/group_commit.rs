//! Several writes in one commit: what many callers wait for at the same time costs one sync of the disk.
//!
//! While one group is written, the next one gathers. Nobody is answered before the commit, and each write keeps what it promises alone:
//! where one errs, or is refused and leaves something behind, the group is rolled back and each is written by itself.

use std::sync::Arc;

use tokio::sync::{
    Semaphore,
    mpsc::{self, Receiver, error::TrySendError},
    oneshot,
};

use super::{
    Acceptance, Dialect, GeneratedCsr, NewCustomCsr, PoolKey, PooledCompletion, SqlStore, StoreError,
    connect::Held,
    generation::{COMPLETE_GENERATION, complete_values},
    lent::Lent,
    signals::Signal,
};
use crate::{audit::Actor, clock::Timestamp, ids::CustomCsrId};

/// Writes that share a commit at most.
const GROUP: usize = 64;

/// Requests that may wait for their turn, those that read and those that write each: who comes beyond them is told to try again.
const WAITING: usize = 2_048;

/// Writes of groups that came apart which are under way at once: one that waits for a lock keeps its own place only.
const APART: usize = 4;

/// A write that may share its commit.
#[derive(Clone)]
pub(super) enum Write {
    /// See [`super::CustomCsrs::accept_custom_csr`].
    Accept(NewCustomCsr, Actor, Timestamp),
    /// See [`super::Generations::complete_generation`].
    Complete(CustomCsrId, GeneratedCsr, Timestamp),
    /// See [`super::PoolKeys::complete_pooled`].
    CompletePooled(CustomCsrId, GeneratedCsr, PoolKey, Timestamp),
}

/// What came of it.
pub(super) enum Written {
    /// Of an acceptance.
    Accept(Acceptance),
    /// Of a completion: whether the row was pending.
    Complete(bool),
    /// Of one with a key from the pool.
    CompletePooled(PooledCompletion),
}

/// What cannot be: the answer to another write.
fn mixed_up<T>() -> Result<T, StoreError> {
    Err(StoreError::Internal("the answer to another write".to_owned()))
}

impl Written {
    pub fn acceptance(self) -> Result<Acceptance, StoreError> {
        match self {
            Self::Accept(acceptance) => Ok(acceptance),
            Self::Complete(_) | Self::CompletePooled(_) => mixed_up(),
        }
    }

    pub fn completed(self) -> Result<bool, StoreError> {
        match self {
            Self::Complete(completed) => Ok(completed),
            Self::Accept(_) | Self::CompletePooled(_) => mixed_up(),
        }
    }

    pub fn pooled(self) -> Result<PooledCompletion, StoreError> {
        match self {
            Self::CompletePooled(completion) => Ok(completion),
            Self::Accept(_) | Self::Complete(_) => mixed_up(),
        }
    }

    /// Whether to commit: a refusal writes nothing that is to stay.
    const fn stays(&self) -> bool {
        matches!(self, Self::Accept(Acceptance::Accepted(_)) | Self::Complete(true) | Self::CompletePooled(PooledCompletion::Completed))
    }
}

/// Why a request gets no turn.
pub(super) fn no_turn<T>(error: &TrySendError<T>) -> StoreError {
    StoreError::Unavailable(match error {
        TrySendError::Full(_) => "too many requests wait for the database".to_owned(),
        TrySendError::Closed(_) => "the database is being closed".to_owned(),
    })
}

/// A write and whom to answer.
pub(super) struct GroupedWrite {
    write: Write,
    answer: oneshot::Sender<Result<Written, StoreError>>,
}

/// Why a group was not committed.
enum GroupError {
    /// Each has to be written alone.
    Apart,
    /// The database is away for all of them alike.
    Away(StoreError),
}

impl<DB: Dialect> SqlStore<DB> {
    /// The same store, with tasks of its own that write and read in groups.
    pub(super) fn grouping(mut self, mut held: Held) -> Self {
        // What one of them keeps is given back when the other closes.
        let same = || Self {
            read: self.read.clone(),
            kept: Arc::clone(&self.kept),
            write: self.write.clone(),
            signals: Arc::clone(&self.signals),
            statement_time: self.statement_time,
            group: None,
            reads: None,
            held: Held::default(),
        };
        let (group, writes) = mpsc::channel(WAITING);
        held.tasks.spawn(Arc::new(same()).write_groups(writes));
        let (reads, asked) = mpsc::channel(WAITING);
        held.tasks.spawn(Arc::new(same()).read_groups(asked));
        (self.group, self.reads, self.held) = (Some(group), Some(reads), held);
        self
    }

    /// Writes, sharing the commit with others where that is useful.
    pub(super) async fn write_grouped(&self, write: Write) -> Result<Written, StoreError> {
        let shares = DB::GROUPS_ACCEPTS || !matches!(write, Write::Accept(..));
        let Some(group) = self.group.as_ref().filter(|_| shares) else { return self.write_alone(&write).await };
        let (answer, answered) = oneshot::channel();
        group.try_send(GroupedWrite { write, answer }).map_err(|error| no_turn(&error))?;
        answered.await.map_err(|_| StoreError::Ambiguous("the write ended without an answer".to_owned()))?
    }

    /// Writes groups for as long as the store lives. Each is a task of its own: one that panics ends with its group.
    async fn write_groups(self: Arc<Self>, mut writes: Receiver<GroupedWrite>) {
        let places = Arc::new(Semaphore::new(if DB::GROUPS_ACCEPTS { 1 } else { APART }));
        let mut group = Vec::with_capacity(GROUP);
        while writes.recv_many(&mut group, GROUP).await > 0 {
            // Whose caller has left is not written: nobody would know of it.
            let mut wanted: Vec<_> = group.drain(..).filter(|grouped| !grouped.answer.is_closed()).collect();
            // On PostgreSQL another process may write some of the same rows: in the same order nobody waits for each other.
            wanted.sort_by_key(|grouped: &GroupedWrite| grouped.write.id());
            let this = Arc::clone(&self);
            let Ok(apart) = tokio::spawn(async move { this.write_group(wanted).await }).await else {
                tracing::error!("a group of writes panicked; whether it was written is not known");
                continue;
            };
            for GroupedWrite { write, answer } in apart {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let this = Arc::clone(&self);
                let alone = async move {
                    if !answer.is_closed() {
                        let _ = answer.send(this.write_alone(&write).await);
                    }
                    drop(place);
                };
                tokio::spawn(alone);
            }
        }
    }

    /// Writes a group and answers it; what has to be written apart.
    async fn write_group(&self, mut group: Vec<GroupedWrite>) -> Vec<GroupedWrite> {
        match self.write_together(&group).await {
            Ok(written) => {
                for (GroupedWrite { answer, .. }, written) in group.drain(..).zip(written) {
                    let _ = answer.send(Ok(written));
                }
            }
            Err(GroupError::Away(error)) => {
                for GroupedWrite { answer, .. } in group.drain(..) {
                    let _ = answer.send(Err(error.clone()));
                }
            }
            Err(GroupError::Apart) => {}
        }
        group
    }

    async fn write_together(&self, group: &[GroupedWrite]) -> Result<Vec<Written>, GroupError> {
        if group.len() <= 1 {
            return Err(GroupError::Apart);
        }
        let mut tx = self.begin_group().await?;
        let mut all = Vec::with_capacity(group.len());
        for GroupedWrite { write, .. } in group {
            let written = match self.write_one(&mut tx, write).await {
                Ok(written) => written,
                // What the database refused, a lock that did not come included, is one write's matter and not all others'.
                Err(_) if tx.is_sound() => return Err(GroupError::Apart),
                Err(error) => return Err(error.into()),
            };
            if !written.stays() && write.leaves_traces() {
                return Err(GroupError::Apart);
            }
            all.push(written);
        }
        self.commit(tx).await?;
        self.signal(group.iter().map(|grouped| &grouped.write).zip(&all));
        Ok(all)
    }

    async fn write_alone(&self, write: &Write) -> Result<Written, StoreError> {
        let written = if let Write::Complete(id, made, now) = write {
            Written::Complete(self.write(COMPLETE_GENERATION, complete_values(*id, made, *now)).await? > 0)
        } else {
            let mut tx = self.begin_write().await?;
            let written = self.write_one(&mut tx, write).await?;
            if written.stays() {
                self.commit(tx).await?;
            }
            written
        };
        self.signal([(write, &written)]);
        Ok(written)
    }

    async fn write_one(&self, tx: &mut Lent<DB>, write: &Write) -> Result<Written, StoreError> {
        Ok(match write {
            Write::Accept(new, actor, now) => Written::Accept(self.accept(tx, new, actor, *now).await?),
            Write::Complete(id, made, now) => {
                Written::Complete(self.execute(tx, COMPLETE_GENERATION, complete_values(*id, made, *now)).await? > 0)
            }
            Write::CompletePooled(id, made, key, now) => Written::CompletePooled(self.complete_with(tx, *id, made, key, *now).await?),
        })
    }

    /// After the commit.
    fn signal<'a>(&self, writes: impl IntoIterator<Item = (&'a Write, &'a Written)>) {
        let mut enqueued = false;
        for (write, written) in writes {
            match write {
                Write::Accept(..) => enqueued |= written.stays(),
                Write::Complete(id, ..) | Write::CompletePooled(id, ..) => self.signals.send(Signal::Changed(*id)),
            }
        }
        if enqueued {
            self.signals.send(Signal::Enqueued);
        }
    }
}

impl Write {
    const fn id(&self) -> CustomCsrId {
        match self {
            Self::Accept(new, ..) => new.id,
            Self::Complete(id, ..) | Self::CompletePooled(id, ..) => *id,
        }
    }

    /// Whether a refusal may have written something: the claim of an Idempotency-Key, half a completion.
    const fn leaves_traces(&self) -> bool {
        match self {
            Self::Accept(new, ..) => new.idempotency_key.is_some(),
            Self::Complete(..) => false,
            Self::CompletePooled(..) => true,
        }
    }
}

impl From<StoreError> for GroupError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Ambiguous(_) => Self::Away(error),
            StoreError::Corrupt(_) | StoreError::Internal(_) => Self::Apart,
        }
    }
}
