//! The threads that make keys.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id};
use tokio::sync::{Semaphore, oneshot};

/// Why a task on a key thread has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ThreadError {
    /// It panicked.
    #[error("panicked")]
    Panicked,
    /// It did not end in time. Its thread was replaced.
    #[error("did not end in time")]
    TimedOut,
}

struct Task {
    run: Box<dyn FnOnce() + Send>,
    /// Set when nobody waits any more: the thread was replaced and must end.
    abandoned: Arc<AtomicBool>,
}

/// Threads at the lowest priority, as many as key generations may run at once: the API keeps its latency.
///
/// A task that panics costs nothing, one that hangs costs its thread, which is replaced.
pub struct KeyThreads {
    tasks: mpsc::Sender<Task>,
    queue: Arc<Mutex<mpsc::Receiver<Task>>>,
    free: Semaphore,
    time_limit: Duration,
    priority: Priority,
}

/// What threads get of a processor that others want too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Little: the API goes first.
    Lowest,
    /// Next to nothing (`SCHED_IDLE`): those of the lowest priority go first too.
    Idle,
}

impl Priority {
    /// Sets it for the calling thread. Linux gives each thread its own. A thread that keeps the default works as well.
    fn take(self) {
        let _ = rustix::process::setpriority_process(None, 19);
        if self == Self::Idle {
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
        }
    }
}

impl KeyThreads {
    /// Starts `threads` threads, at least one. A task may take `time_limit`.
    ///
    /// # Errors
    ///
    /// Where the operating system gives no thread.
    pub fn start(threads: usize, time_limit: Duration, priority: Priority) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let (tasks, queue) = mpsc::channel();
        let this = Self { tasks, queue: Arc::new(Mutex::new(queue)), free: Semaphore::new(threads), time_limit, priority };
        for _ in 0..threads {
            this.spawn()?;
        }
        Ok(this)
    }

    fn spawn(&self) -> std::io::Result<()> {
        let (queue, priority) = (Arc::clone(&self.queue), self.priority);
        let run = move || {
            priority.take();
            work(&queue);
        };
        thread::Builder::new().name("keygen".to_owned()).spawn(run).map(drop)
    }

    /// Runs `task` on one of the threads, waiting for a free one.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] where the task panicked or took too long.
    pub async fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> Result<T, ThreadError> {
        // Never closed, so never refused.
        let Ok(_free) = self.free.acquire().await else { return Err(ThreadError::Panicked) };
        let (sender, receiver) = oneshot::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let run = Box::new(move || {
            let _ = sender.send(catch_unwind(AssertUnwindSafe(task)));
        });
        if self.tasks.send(Task { run, abandoned: Arc::clone(&abandoned) }).is_err() {
            return Err(ThreadError::Panicked);
        }
        match tokio::time::timeout(self.time_limit, receiver).await {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(_)) | Err(_)) => Err(ThreadError::Panicked),
            Err(_) => {
                abandoned.store(true, Ordering::SeqCst);
                if let Err(error) = self.spawn() {
                    tracing::error!(%error, "a hung key generation thread could not be replaced");
                }
                Err(ThreadError::TimedOut)
            }
        }
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Task>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { run, abandoned }) = next else { return };
        run();
        if abandoned.load(Ordering::SeqCst) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_does_not_stop_the_only_thread() {
        let threads = KeyThreads::start(1, Duration::from_secs(30), Priority::Lowest).unwrap();
        assert_eq!(threads.run(|| panic!("as planned")).await, Err::<(), _>(ThreadError::Panicked));
        assert_eq!(threads.run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_task_that_hangs_is_given_up_and_its_thread_replaced() {
        let threads = KeyThreads::start(1, Duration::from_millis(500), Priority::Idle).unwrap();
        let (release, held) = mpsc::channel::<()>();
        assert_eq!(threads.run(move || held.recv().is_ok()).await, Err(ThreadError::TimedOut));
        assert_eq!(threads.run(|| 1).await, Ok(1));
        release.send(()).unwrap();
        assert_eq!(threads.run(|| 2).await, Ok(2));
    }
}
