//! Batches: what many callers wait for at the same time costs one trip to the database, and one sync of the disk.
//!
//! While one batch is in the database, the next one gathers; a request that comes alone goes at once. Only what fills a batch goes beside
//! another one: small batches side by side cost more than one after the other. Every request has a key, such as its zone. Keys take turns, and of each key one batch at a time is under way: one that waits for a lock keeps nobody waiting but those of
//! its own key.

mod queue;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc};

use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

use self::queue::{Entry, Group, Queue, Takes};
use super::tasks::{Alarm, Tasks};
use crate::storage::StoreError;

/// Batches of one [`Batch`] that wait for locks, or find out which of their requests errs, at once.
const SLOW: usize = 2;

/// What became of one request of a batch.
pub enum Outcome<T> {
    /// This is its answer.
    Answer(Result<T, StoreError>),
    /// Nothing, since somebody else has a lock: it is tried again, and waits.
    Locked,
}

/// Why a batch was not done.
pub struct Failure {
    /// What its callers are told.
    pub error: StoreError,
    /// Whether the database answered: then the fault may be that of one request, and the others are done without it.
    pub is_answer: bool,
}

impl Failure {
    /// Of what ends in a commit: the database refused it, or could not do it for anybody.
    pub const fn of_commit(error: StoreError) -> Self {
        let is_answer = match &error {
            StoreError::Internal(_) | StoreError::Corrupt(_) => true,
            StoreError::Unavailable(_) | StoreError::Ambiguous(_) => false,
        };
        Self { error, is_answer }
    }

    /// Nothing was asked yet, or the answer is lost.
    pub const fn without_answer(error: StoreError) -> Self {
        Self { error, is_answer: false }
    }
}

/// Does what is asked for.
pub trait Work: Clone + Send + Sync + 'static {
    /// What callers ask for.
    type Request: Send + Sync + 'static;
    /// What they get.
    type Response: Send + 'static;
    /// What requests have in common that would wait for each other.
    type Key: Clone + Eq + Hash + Send + 'static;

    /// Whether one batch may have several requests of one key.
    const TOGETHER: bool;

    /// The key of a request.
    fn key(request: &Self::Request) -> Self::Key;

    /// Does a batch; one outcome for each request, in their order. It waits for locks only if it is asked to.
    fn run(&self, requests: &[&Self::Request], waits: bool) -> impl Future<Output = Result<Vec<Outcome<Self::Response>>, Failure>> + Send;
}

/// Where callers ask.
pub struct Batch<W: Work>(Arc<Queue<W>>);

impl<W: Work> Batch<W> {
    /// With so many batches under way at once, all but one of them full.
    pub fn new(work: &W, lanes: usize, tasks: &Tasks) -> Self {
        let (queue, slow) = (Arc::new(Queue::default()), Arc::new(Semaphore::new(SLOW)));
        for takes in std::iter::once(Takes::Any).chain(std::iter::repeat_n(Takes::Full, lanes.saturating_sub(1))) {
            tasks.spawn(lane(Arc::clone(&queue), takes, work.clone(), Arc::clone(&slow), tasks.alarm()));
        }
        Self(queue)
    }

    /// Lets a request wait; whoever drops the receiver of its answer leaves.
    fn enter(&self, request: W::Request) -> Result<oneshot::Receiver<Result<W::Response, StoreError>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0.push(Entry { request, answer })?;
        Ok(answered)
    }

    /// Asks, and waits for the answer. Whose caller leaves before its turn comes is not done.
    pub async fn ask(&self, request: W::Request) -> Result<W::Response, StoreError> {
        self.enter(request)?.await.map_err(|_| StoreError::Ambiguous("the task that was to do it has ended".to_owned()))?
    }
}

/// Does one batch after the other.
async fn lane<W: Work>(queue: Arc<Queue<W>>, takes: Takes, work: W, slow: Arc<Semaphore>, alarm: Alarm) {
    let mut settling = JoinSet::new();
    loop {
        let arrived = queue.arrived(takes).notified();
        // What other requests are about to ask for comes along: they have their turn first.
        tokio::task::yield_now().await;
        let Some((keys, group)) = queue.take(takes) else {
            arrived.await;
            continue;
        };
        let groups = match attempt(&work, group, false).await {
            Left::Nothing => Vec::new(),
            Left::Locked(left) => by_key::<W>(left),
            Left::Failed(left) => vec![(keys.clone(), left)],
        };
        queue.release(keys.into_iter().filter(|key| !groups.iter().any(|(held, _)| held.contains(key))).collect());
        for (keys, group) in groups {
            let (queue, work, slow, alarm) = (Arc::clone(&queue), work.clone(), Arc::clone(&slow), alarm.clone());
            settling.spawn(async move {
                let _alarm = alarm;
                settle(&slow, &work, group).await;
                queue.release(keys);
            });
        }
        while settling.try_join_next().is_some() {}
    }
}

/// What waits for a lock waits with those of its own key only.
fn by_key<W: Work>(entries: Vec<Entry<W>>) -> Vec<Group<W>> {
    let mut groups: HashMap<W::Key, Vec<Entry<W>>> = HashMap::new();
    for entry in entries {
        groups.entry(W::key(&entry.request)).or_default().push(entry);
    }
    groups.into_iter().map(|(key, entries)| (vec![key], entries)).collect()
}

/// Does requests that wait for a lock, or of which one may err: half of them at a time, down to one.
async fn settle<W: Work>(slow: &Semaphore, work: &W, group: Vec<Entry<W>>) {
    let Ok(_place) = slow.acquire().await else { return };
    let mut parts = vec![group];
    while let Some(mut part) = parts.pop() {
        part.retain(|entry| !entry.answer.is_closed());
        if let Left::Failed(mut left) | Left::Locked(mut left) = attempt(work, part, true).await {
            parts.push(left.split_off(left.len() / 2));
            parts.push(left);
        }
    }
}

/// Whether parts of a batch that failed may be done. What waited for the lock of one key in vain does not wait for it again.
fn may_be_split<W: Work>(group: &[Entry<W>], error: &StoreError, waits: bool) -> bool {
    let is_of_one_key = || group.windows(2).all(|pair| W::key(&pair[0].request) == W::key(&pair[1].request));
    let waited_in_vain = waits && matches!(error, StoreError::Unavailable(_)) && is_of_one_key();
    group.len() > 1 && !waited_in_vain
}

/// Requests of a batch that have no answer yet.
enum Left<W: Work> {
    Nothing,
    /// Somebody else has the locks that these need.
    Locked(Vec<Entry<W>>),
    /// One of them may err.
    Failed(Vec<Entry<W>>),
}

/// Does a batch and answers it, but for what has to be done in another way.
async fn attempt<W: Work>(work: &W, group: Vec<Entry<W>>, waits: bool) -> Left<W> {
    if group.is_empty() {
        return Left::Nothing;
    }
    let requests: Vec<_> = group.iter().map(|entry| &entry.request).collect();
    match work.run(&requests, waits).await {
        Ok(outcomes) => {
            let mut left = Vec::new();
            for (entry, outcome) in group.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Answer(answer) => drop(entry.answer.send(answer)),
                    Outcome::Locked if waits => drop(entry.answer.send(Err(StoreError::Unavailable("a lock did not come".to_owned())))),
                    Outcome::Locked => left.push(entry),
                }
            }
            if left.is_empty() { Left::Nothing } else { Left::Locked(left) }
        }
        Err(Failure { is_answer: true, error }) if may_be_split(&group, &error, waits) => Left::Failed(group),
        Err(Failure { error, .. }) => {
            for entry in group {
                drop(entry.answer.send(Err(error.clone())));
            }
            Left::Nothing
        }
    }
}
