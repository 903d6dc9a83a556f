//! What a [`Batch`] promises, without a database.

use std::{
    sync::{Mutex, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use super::*;

/// A request: its key, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked(&'static str, u32);

const BAD: u32 = 1_000_000;
const PANIC: u32 = 1_000_001;
/// Locked by somebody else until [`World::unlock`].
const LOCKED: &str = "locked";

#[derive(Default)]
struct World {
    /// Batches that were done, in order.
    done: Mutex<Vec<Vec<Asked>>>,
    /// Whether batches have to wait at the gate.
    closed: AtomicBool,
    opened: Notify,
    arrived: Notify,
    unlocked: AtomicBool,
    unlock: Notify,
}

impl World {
    fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    fn done(&self) -> Vec<Asked> {
        self.done.lock().unwrap().iter().flatten().cloned().collect()
    }
}

#[derive(Clone)]
struct Fake(Arc<World>);

impl Work for Fake {
    type Request = Asked;
    type Response = u32;
    type Key = &'static str;
    const TOGETHER: bool = true;

    fn key(request: &Asked) -> &'static str {
        request.0
    }

    async fn run(&self, requests: &[&Asked], waits: bool) -> Result<Vec<Outcome<u32>>, Failure> {
        let opened = self.0.opened.notified();
        self.0.arrived.notify_one();
        if self.0.closed.load(Ordering::SeqCst) {
            opened.await;
        }
        assert!(requests.iter().all(|request| request.1 != PANIC), "as it was asked to");
        if requests.iter().any(|request| request.1 == BAD) {
            return Err(Failure { error: StoreError::Internal("bad".into()), is_answer: true });
        }
        if waits && requests.iter().any(|request| request.0 == LOCKED) {
            let unlocked = self.0.unlock.notified();
            if !self.0.unlocked.load(Ordering::SeqCst) {
                unlocked.await;
            }
        }
        self.0.done.lock().unwrap().push(requests.iter().map(|request| (*request).clone()).collect());
        let is_free = |request: &Asked| waits || request.0 != LOCKED;
        Ok(requests.iter().map(|request| if is_free(request) { Outcome::Answer(Ok(request.1)) } else { Outcome::Locked }).collect())
    }
}

fn batch(lanes: usize) -> (Arc<World>, Batch<Fake>, Tasks) {
    let (world, tasks) = (Arc::new(World::default()), Tasks::new());
    let batch = Batch::new(&Fake(Arc::clone(&world)), lanes, &tasks);
    (world, batch, tasks)
}

type Answered = oneshot::Receiver<Result<u32, StoreError>>;

fn ask(batch: &Batch<Fake>, key: &'static str, number: u32) -> Answered {
    batch.enter(Asked(key, number)).unwrap()
}

/// Keeps the only lane busy.
async fn occupied(world: &World, batch: &Batch<Fake>) -> Answered {
    world.closed.store(true, Ordering::SeqCst);
    let busy = ask(batch, "busy", 0);
    world.arrived.notified().await;
    busy
}

#[tokio::test]
async fn what_gathers_while_a_batch_is_under_way_is_one_batch() {
    let (world, batch, _tasks) = batch(1);
    let busy = occupied(&world, &batch).await;
    let (one, other) = (ask(&batch, "a", 1), ask(&batch, "b", 2));
    world.open();
    assert_eq!((busy.await.unwrap().unwrap(), one.await.unwrap().unwrap(), other.await.unwrap().unwrap()), (0, 1, 2));
    assert_eq!(world.done.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn beside_a_batch_that_is_under_way_only_a_full_one_is_begun() {
    let (world, batch, _tasks) = batch(2);
    let busy = occupied(&world, &batch).await;
    let mut asked: Vec<_> = (1..queue::SIZE).map(|number| ask(&batch, "a", u32::try_from(number).unwrap())).collect();
    let is_begun = |time| tokio::time::timeout(time, world.arrived.notified());
    assert!(is_begun(Duration::from_millis(50)).await.is_err(), "one too few");
    asked.push(ask(&batch, "b", 0));
    assert!(is_begun(Duration::from_mins(1)).await.is_ok());
    world.open();
    for answer in asked.into_iter().chain([busy]) {
        answer.await.unwrap().unwrap();
    }
    let mut sizes: Vec<_> = world.done.lock().unwrap().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, queue::SIZE]);
}

#[tokio::test]
async fn what_a_caller_who_has_left_asked_for_is_not_done() {
    let (world, batch, _tasks) = batch(1);
    let busy = occupied(&world, &batch).await;
    let (left, stayed) = (ask(&batch, "a", 1), ask(&batch, "a", 2));
    drop(left);
    world.open();
    assert_eq!(stayed.await.unwrap().unwrap(), 2);
    busy.await.unwrap().unwrap();
    assert_eq!(world.done(), [Asked("busy", 0), Asked("a", 2)]);
}

#[tokio::test]
async fn beyond_the_bound_callers_are_told_to_try_again_and_those_who_left_make_room() {
    let (world, batch, _tasks) = batch(1);
    let _busy = occupied(&world, &batch).await;
    let mut waiting = Vec::new();
    for number in 0..queue::WAITING_OF_KEY {
        waiting.push(ask(&batch, "a", u32::try_from(number).unwrap()));
    }
    assert!(matches!(batch.ask(Asked("a", 0)).await, Err(StoreError::Unavailable(_))));
    let other = ask(&batch, "b", 1);
    let left = waiting.pop().unwrap();
    drop(left);
    let late = ask(&batch, "a", 7);
    world.open();
    assert_eq!((other.await.unwrap().unwrap(), late.await.unwrap().unwrap()), (1, 7));
}

#[tokio::test]
async fn one_request_that_errs_is_its_own_callers_error_and_nobody_elses() {
    let (world, batch, _tasks) = batch(1);
    let _busy = occupied(&world, &batch).await;
    let mut asked = Vec::new();
    for number in 0..63 {
        asked.push(ask(&batch, if number % 2 == 0 { "a" } else { "b" }, number));
    }
    let bad = ask(&batch, "a", BAD);
    world.open();
    for (number, asked) in asked.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap().unwrap() as usize, number);
    }
    assert!(matches!(bad.await.unwrap(), Err(StoreError::Internal(_))));
}

#[tokio::test]
async fn what_waits_for_a_lock_keeps_nobody_else_waiting() {
    let (world, batch, _tasks) = batch(1);
    let mut locked = Vec::new();
    for number in 0..100 {
        locked.push(ask(&batch, LOCKED, number));
        assert_eq!(ask(&batch, "free", number).await.unwrap().unwrap(), number);
    }
    assert!(locked.iter_mut().all(|locked| locked.try_recv().is_err()));
    world.unlocked.store(true, Ordering::SeqCst);
    world.unlock.notify_waiters();
    for (number, locked) in locked.into_iter().enumerate() {
        assert_eq!(locked.await.unwrap().unwrap() as usize, number);
    }
}

#[tokio::test]
async fn a_task_that_panics_is_noticed() {
    let (_world, batch, tasks) = batch(1);
    assert!(tokio::time::timeout(Duration::from_millis(10), tasks.panicked()).await.is_err());
    assert!(matches!(batch.ask(Asked("a", PANIC)).await, Err(StoreError::Ambiguous(_))));
    tokio::time::timeout(Duration::from_mins(1), tasks.panicked()).await.unwrap();
}
