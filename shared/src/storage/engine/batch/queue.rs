//! Requests that wait for their turn, by key: keys take turns, and of each key one batch at a time is under way.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::Work;
use crate::storage::StoreError;

/// Requests of a batch at most.
pub(super) const SIZE: usize = 64;
/// Requests that may wait: who comes beyond them is told to try again.
const WAITING: usize = 2_048;
/// Likewise, of one key.
pub(super) const WAITING_OF_KEY: usize = 512;

/// Which batches a lane takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Any,
    Full,
}

/// A request and whom to answer.
pub(super) struct Entry<W: Work> {
    pub request: W::Request,
    pub answer: oneshot::Sender<Result<W::Response, StoreError>>,
}

pub(super) struct Queue<W: Work> {
    state: Mutex<State<W>>,
    /// Tells that somebody has a turn.
    arrived: Notify,
    /// Tells that there may be a full batch.
    filled: Notify,
}

impl<W: Work> Default for Queue<W> {
    fn default() -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), filled: Notify::new() }
    }
}

/// What waits.
struct State<W: Work> {
    /// By key. A key that is under way has its place here even while nobody waits.
    waiting: HashMap<W::Key, VecDeque<Entry<W>>>,
    /// Keys with requests that are not under way, in the order of their turns.
    turns: VecDeque<W::Key>,
    /// How many wait.
    count: usize,
}

impl<W: Work> Default for State<W> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), turns: VecDeque::new(), count: 0 }
    }
}

impl<W: Work> State<W> {
    /// Whether too many wait, even without those whose callers have left.
    fn is_full_for(&mut self, key: &W::Key) -> bool {
        let is_full =
            |state: &Self| state.count >= WAITING || state.waiting.get(key).is_some_and(|entries| entries.len() >= WAITING_OF_KEY);
        if is_full(self) {
            self.forget_left();
        }
        is_full(self)
    }

    /// Whether those who have a turn fill a batch.
    fn fills_a_batch(&self) -> bool {
        let of_key = |key| self.waiting.get(key).map_or(0, |entries| if W::TOGETHER { entries.len() } else { entries.len().min(1) });
        self.count >= SIZE && self.turns.iter().map(of_key).sum::<usize>() >= SIZE
    }

    /// Forgets those whose callers have left.
    fn forget_left(&mut self) {
        for entries in self.waiting.values_mut() {
            let before = entries.len();
            entries.retain(|entry| !entry.answer.is_closed());
            self.count -= before - entries.len();
        }
    }
}

/// Requests with their keys, which are theirs alone until they are released.
pub(super) type Group<W> = (Vec<<W as Work>::Key>, Vec<Entry<W>>);

impl<W: Work> Queue<W> {
    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that there may be something to take.
    pub const fn arrived(&self, takes: Takes) -> &Notify {
        match takes {
            Takes::Any => &self.arrived,
            Takes::Full => &self.filled,
        }
    }

    /// Tells the lanes, after requests came or keys were given free.
    fn tell(&self, state: &State<W>) {
        self.arrived.notify_one();
        if state.count >= SIZE {
            self.filled.notify_one();
        }
    }

    /// Lets a request wait, unless too many do.
    pub fn push(&self, entry: Entry<W>) -> Result<(), StoreError> {
        let key = W::key(&entry.request);
        let mut state = self.state();
        if state.is_full_for(&key) {
            return Err(StoreError::Unavailable("too many requests wait for the database".to_owned()));
        }
        state.count += 1;
        if let Some(entries) = state.waiting.get_mut(&key) {
            // It has its turn already, or gets it when what is under way is done.
            entries.push_back(entry);
        } else {
            state.waiting.insert(key.clone(), VecDeque::from([entry]));
            state.turns.push_back(key);
        }
        self.tell(&state);
        Ok(())
    }

    /// The next batch, if anybody waits whose key is not under way.
    pub fn take(&self, takes: Takes) -> Option<Group<W>> {
        let (mut keys, mut group) = (Vec::new(), Vec::new());
        let mut state = self.state();
        if takes == Takes::Full && !state.fills_a_batch() {
            return None;
        }
        while group.len() < SIZE {
            let Some(key) = state.turns.pop_front() else { break };
            let limit = if W::TOGETHER { SIZE - group.len() } else { 1 };
            let before = group.len();
            let State { waiting, count, .. } = &mut *state;
            let Some(entries) = waiting.get_mut(&key) else { continue };
            while group.len() - before < limit
                && let Some(entry) = entries.pop_front()
            {
                *count -= 1;
                if !entry.answer.is_closed() {
                    group.push(entry);
                }
            }
            if group.len() > before {
                keys.push(key);
            } else {
                waiting.remove(&key);
            }
        }
        // Others may go on with what this batch has no room for.
        if !state.turns.is_empty() {
            self.tell(&state);
        }
        (!group.is_empty()).then_some((keys, group))
    }

    /// Gives keys free: those that others wait for have their turn again.
    pub fn release(&self, keys: Vec<W::Key>) {
        let mut state = self.state();
        for key in keys {
            if state.waiting.get(&key).is_some_and(VecDeque::is_empty) {
                state.waiting.remove(&key);
            } else {
                state.turns.push_back(key);
            }
        }
        self.tell(&state);
    }
}
