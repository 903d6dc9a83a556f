//! Several writes in one commit: what many callers wait for at the same time costs one sync of the disk.
//!
//! While one group is written, the next one gathers. Nobody is answered before the commit, and each write keeps what it promises alone:
//! where one errs, or is refused and leaves something behind, the group is rolled back and each is written by itself.

use std::sync::Arc;

use sqlx::Transaction;
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver},
        oneshot,
    },
    task::JoinSet,
};

use super::{
    Acceptance, Dialect, GeneratedCsr, NewCustomCsr, PoolKey, PooledCompletion, SqlStore, parameters::complete_values, signals::Signal,
    statements as sql,
};
use crate::{audit::Actor, clock::Timestamp, error::StoreError, ids::CustomCsrId};

/// Writes that share a commit at most.
const GROUP: usize = 64;

/// A write that may share its commit.
#[derive(Clone)]
pub(super) enum Write {
    /// See [`super::Store::accept_custom_csr`].
    Accept(NewCustomCsr, Actor, Timestamp),
    /// See [`super::Store::complete_generation`].
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
    /// The same store, with tasks that write and read in groups.
    pub(super) fn grouping(mut self, tasks: &mut JoinSet<()>) -> Self {
        // What one of them keeps is given back when the other closes.
        let same = || Self {
            read: self.read.clone(),
            kept: Arc::clone(&self.kept),
            write: self.write.clone(),
            signals: Arc::clone(&self.signals),
            statement_time: self.statement_time,
            group: None,
            reads: None,
        };
        let (group, writes) = mpsc::unbounded_channel();
        tasks.spawn(same().write_groups(writes));
        let (reads, asked) = mpsc::unbounded_channel();
        tasks.spawn(Arc::new(same()).read_groups(asked));
        (self.group, self.reads) = (Some(group), Some(reads));
        self
    }

    /// Writes, sharing the commit with others where that is useful.
    pub(super) async fn write_grouped(&self, write: Write) -> Result<Written, StoreError> {
        let shares = DB::GROUPS_ACCEPTS || !matches!(write, Write::Accept(..));
        let Some(group) = self.group.as_ref().filter(|_| shares) else { return self.write_alone(&write).await };
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Unavailable("the database is being closed".to_owned());
        group.send(GroupedWrite { write, answer }).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    async fn write_groups(self, mut writes: UnboundedReceiver<GroupedWrite>) {
        let mut group = Vec::with_capacity(GROUP);
        while writes.recv_many(&mut group, GROUP).await > 0 {
            // On PostgreSQL another process may write some of the same rows: in the same order nobody waits for each other.
            group.sort_by_key(|grouped: &GroupedWrite| grouped.write.id());
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
                Err(GroupError::Apart) => {
                    for GroupedWrite { write, answer } in group.drain(..) {
                        let _ = answer.send(self.write_alone(&write).await);
                    }
                }
            }
        }
    }

    async fn write_together(&self, group: &[GroupedWrite]) -> Result<Vec<Written>, GroupError> {
        if group.len() == 1 {
            return Err(GroupError::Apart);
        }
        let mut tx = self.begin_write().await?;
        let mut all = Vec::with_capacity(group.len());
        for GroupedWrite { write, .. } in group {
            let written = self.write_one(&mut tx, write).await?;
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
            Written::Complete(self.write(sql::COMPLETE_GENERATION, complete_values(*id, made, *now)).await? > 0)
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

    async fn write_one(&self, tx: &mut Transaction<'static, DB>, write: &Write) -> Result<Written, StoreError> {
        Ok(match write {
            Write::Accept(new, actor, now) => Written::Accept(self.accept(tx, new, actor, *now).await?),
            Write::Complete(id, made, now) => {
                Written::Complete(self.execute(tx, sql::COMPLETE_GENERATION, complete_values(*id, made, *now)).await? > 0)
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
