//! Tasks that wait for a place on the key threads. While many do, results wait for each other, and are written together.
//!
//! Keys that take long are made one by one. Written one by one, each has the database, the disk and the scheduler to itself, and the threads
//! that make the next keys pay for that. A batch costs little more than one result, so the line moves faster. Where no line waits, a
//! result is written at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// How long the first result waits for others.
const GATHERING: Duration = Duration::from_millis(100);

/// Counts the tasks that wait for a place.
pub struct Backlog {
    waiting: watch::Sender<usize>,
    /// With so many, each thread finds another task when its present one ends, even if no client asks for more until it has its result.
    many: usize,
    /// When the results that gather go on, or those before them went.
    go_on_at: Mutex<Instant>,
}

impl Backlog {
    /// Of so many threads.
    pub fn new(threads: usize) -> Self {
        Self { waiting: watch::Sender::new(0), many: threads, go_on_at: Mutex::new(Instant::now()) }
    }

    /// Counts a task that waits for a place, until what is returned is dropped.
    pub fn enter(&self) -> Waiting<'_> {
        // Only a change between few and many is told: results that gather need not wake for each task.
        self.waiting.send_if_modified(|count| {
            *count += 1;
            *count == self.many
        });
        Waiting(self)
    }

    /// While many tasks wait, waits for other results: the first for [`GATHERING`], and those that come meanwhile as long as it.
    pub async fn gather(&self) {
        let is_few = |count: &usize| *count < self.many;
        let mut waiting = self.waiting.subscribe();
        if !is_few(&waiting.borrow()) {
            let _ = tokio::time::timeout_at(self.end_of_gathering(), waiting.wait_for(is_few)).await;
        }
    }

    fn end_of_gathering(&self) -> Instant {
        let mut go_on_at = self.go_on_at.lock().unwrap_or_else(PoisonError::into_inner);
        if *go_on_at <= Instant::now() {
            *go_on_at = Instant::now() + GATHERING;
        }
        *go_on_at
    }
}

/// A task that waits for a place.
pub struct Waiting<'a>(&'a Backlog);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_if_modified(|count| {
            *count -= 1;
            *count + 1 == self.0.many
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    /// How long a result waits that comes after so long.
    async fn waits(backlog: &Backlog, after: Duration) -> Duration {
        tokio::time::sleep(after).await;
        let came = Instant::now();
        backlog.gather().await;
        came.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_goes_on_at_once_while_few_tasks_wait() {
        let backlog = Backlog::new(2);
        assert_eq!(waits(&backlog, Duration::from_millis(1)).await, Duration::ZERO);
        let _one = backlog.enter();
        assert_eq!(waits(&backlog, Duration::from_millis(2)).await, Duration::ZERO);
        let _two = backlog.enter();
        assert_eq!(waits(&backlog, Duration::from_millis(3)).await, GATHERING, "the first that waits, waits its whole time");
    }

    #[tokio::test(start_paused = true)]
    async fn results_go_on_together_while_many_tasks_wait() {
        let backlog = Backlog::new(2);
        let _many = [backlog.enter(), backlog.enter()];
        let waited = join_all([5, 40, 104, 110, 170].map(|ms| waits(&backlog, Duration::from_millis(ms)))).await;
        assert_eq!(waited, [100, 65, 1, 100, 40].map(Duration::from_millis));
    }

    #[tokio::test(start_paused = true)]
    async fn results_go_on_when_tasks_no_longer_wait_because_they_began_or_were_given_up() {
        let backlog = Backlog::new(2);
        let [_one, other] = [backlog.enter(), backlog.enter()];
        let few = async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            drop(other);
        };
        let (waited, ()) = tokio::join!(waits(&backlog, Duration::from_millis(10)), few);
        assert_eq!(waited, Duration::from_millis(20));
    }
}
