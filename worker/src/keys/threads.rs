//! The threads that make keys: a tokio runtime of their own, whose threads have a low priority.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rustix::thread::{Pid, gettid};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::backlog::Backlog;

/// An idle thread ends after this time: the next key pays for a new one, which is little beside a minute.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// The most threads that may hang. A task that hangs keeps its thread for ever, since a thread cannot be killed, and tokio adds one for the
/// next task. Once so many hang, further tasks find no thread and time out too: the library is broken, and more threads would only take memory.
const HUNG_THREADS_MAX: usize = 512;

/// How often a task that takes long is looked at, until its time is over.
const LOOKS: u32 = 60;

/// Why a task on a key thread has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ThreadError {
    /// The task panicked.
    #[error("panicked")]
    Panicked,
    /// The task did not end in time, although it had a processor. It keeps its thread until it ends, but not its place.
    #[error("did not end in time")]
    TimedOut,
    /// The task did not run: the operating system gives no thread.
    #[error("has no thread: the operating system gives none")]
    NoThread,
    /// The task did not run: the threads were told to end.
    #[error("was not started: the worker stops")]
    Ended,
}

/// How much processor time a thread gets while other threads want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Little, for tasks that are short: it may go on for some milliseconds before another thread gets its processor.
    Lowest,
    /// Almost none (`SCHED_IDLE`), for long tasks: whatever wakes gets its processor at once, threads of the lowest priority too.
    Idle,
}

impl Priority {
    /// Linux has a priority for each thread. If it refuses, the thread keeps the default one and works as well.
    fn apply_to_this_thread(self) {
        let _ = rustix::process::setpriority_process(None, 19);
        if self == Self::Idle {
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
        }
    }
}

/// Runs tasks on threads of a low priority, so that the API keeps its latency.
///
/// A task that panics keeps its thread usable. A task that hangs is given up after the time limit, and another one runs in its place.
pub struct KeyThreads {
    handle: Handle,
    /// `None` once the threads were told to end.
    runtime: Mutex<Option<Runtime>>,
    /// Bounds the tasks that run at once. Only [`KeyThreads::run`] acquires its permits.
    free: Semaphore,
    backlog: Backlog,
    /// How long a task may take. The time in which its thread waits for a processor does not count.
    time_limit: Duration,
}

impl KeyThreads {
    /// Prepares `threads` threads, at least one. They start with the first tasks. A task may take `time_limit`.
    ///
    /// # Errors
    ///
    /// If the runtime cannot be built.
    pub fn start(threads: usize, time_limit: Duration, priority: Priority) -> std::io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        builder.on_thread_start(move || priority.apply_to_this_thread());
        Self::with(builder, threads, time_limit)
    }

    fn with(mut builder: Builder, threads: usize, time_limit: Duration) -> std::io::Result<Self> {
        let threads = threads.max(1);
        builder.thread_name("keygen").thread_keep_alive(KEEP_ALIVE).max_blocking_threads(threads + HUNG_THREADS_MAX);
        let runtime = builder.build()?;
        let (handle, free, backlog) = (runtime.handle().clone(), Semaphore::new(threads), Backlog::new(threads));
        Ok(Self { handle, runtime: Mutex::new(Some(runtime)), free, backlog, time_limit })
    }

    /// Threads with a stack larger than any memory: the operating system refuses each of them.
    #[cfg(test)]
    pub fn that_get_no_thread() -> Self {
        let mut builder = Builder::new_current_thread();
        builder.thread_stack_size(1 << 60);
        Self::with(builder, 1, Duration::from_mins(1)).unwrap()
    }

    /// Runs `task` on one of the threads, once one is free.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the task panicked, took too long, or did not run.
    pub async fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> Result<T, ThreadError> {
        let waiting = self.backlog.enter();
        let _place = self.free.acquire().await.map_err(|_| ThreadError::Ended)?;
        drop(waiting);
        let thread = Arc::new(OnceLock::new());
        let at_work = Arc::clone(&thread);
        let mut running = self.spawn(move || {
            let _ = at_work.set(gettid());
            task()
        })?;
        let began = Instant::now();
        let mut waited_before = None;
        loop {
            match tokio::time::timeout(self.time_limit / LOOKS, &mut running).await {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(error)) if error.is_panic() => return Err(ThreadError::Panicked),
                Ok(Err(_)) => return Err(ThreadError::Ended),
                Err(_) => {
                    let waited = thread.get().and_then(|thread| waited_for_a_processor(*thread));
                    // What the thread waited for in tasks before this one does not count.
                    let waited = waited.map(|waited| waited.saturating_sub(*waited_before.get_or_insert(waited)));
                    if began.elapsed().saturating_sub(waited.unwrap_or_default()) >= self.time_limit {
                        // Without effect on a task that runs; one that still waits for a thread must not run for nobody.
                        running.abort();
                        return Err(ThreadError::TimedOut);
                    }
                }
            }
        }
    }

    /// Lets a result wait up to 0.1 s for those of other tasks, so that they are written together, if as many tasks as there are threads wait for a
    /// place.
    pub async fn gather(&self) {
        self.backlog.gather().await;
    }

    #[expect(clippy::disallowed_methods, reason = "this is the runtime whose threads make keys")]
    fn spawn<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, ThreadError> {
        // tokio panics if it has no thread and the operating system gives it none.
        catch_unwind(AssertUnwindSafe(|| self.handle.spawn_blocking(task))).map_err(|_| ThreadError::NoThread)
    }

    /// Ends the threads: idle ones now, and those at work when their task ends. From now on no task is started. Returns whether all
    /// threads are gone within `patience`; the others are left behind.
    ///
    /// A thread is gone once it was joined, with everything that libraries keep for it: a thread that ends while the process exits would
    /// run their clean-up beside their exit handlers.
    pub async fn end(&self, patience: Duration) -> bool {
        self.free.close();
        let Some(runtime) = self.take_runtime() else { return true };
        // Joining blocks, so a thread does it that nobody else needs. It starts before it gets the runtime, which must not be dropped here.
        let (hand_over, handed_over) = mpsc::channel::<Runtime>();
        let (ended, all_ended) = oneshot::channel();
        let join = move || {
            drop(handed_over.recv());
            let _ = ended.send(());
        };
        if thread::Builder::new().name("keygen-end".to_owned()).spawn(join).is_err() {
            runtime.shutdown_background();
            return false;
        }
        if let Err(mpsc::SendError(runtime)) = hand_over.send(runtime) {
            runtime.shutdown_background();
        }
        tokio::time::timeout(patience, all_ended).await.is_ok_and(|ended| ended.is_ok())
    }

    fn take_runtime(&self) -> Option<Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How long a thread of this process was ready to run and had no processor, if the operating system tells (`proc_pid_schedstat(5)`).
fn waited_for_a_processor(thread: Pid) -> Option<Duration> {
    let figures = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    figures.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// Leaves the threads to themselves: dropping a runtime waits for its threads, which tokio forbids in an async context.
impl Drop for KeyThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.take_runtime() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        collections::HashSet,
        sync::atomic::{AtomicBool, Ordering},
        thread::ThreadId,
    };

    use rustix::{
        thread::{CpuSet, sched_setaffinity},
        time::{ClockId, clock_gettime},
    };
    use thread_priority::thread_schedule_policy;
    use tokio::task::JoinSet;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn threads(count: usize) -> KeyThreads {
        KeyThreads::start(count, LONG, Priority::Lowest).unwrap()
    }

    #[tokio::test]
    async fn a_task_that_panics_does_not_stop_the_only_thread() {
        let threads = threads(1);
        assert_eq!(threads.run(|| panic!("as planned")).await, Err::<(), _>(ThreadError::Panicked));
        assert_eq!(threads.run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_task_that_hangs_is_given_up_and_another_runs_in_its_place() {
        let mut threads = KeyThreads::start(1, Duration::from_millis(500), Priority::Idle).unwrap();
        let (release, held) = mpsc::channel::<()>();
        assert_eq!(threads.run(move || held.recv().is_ok()).await, Err(ThreadError::TimedOut));
        // On a busy machine the next ones may take longer.
        threads.time_limit = LONG;
        assert_eq!(threads.run(|| 1).await, Ok(1));
        release.send(()).unwrap();
        assert_eq!(threads.run(|| 2).await, Ok(2));
    }

    /// Runs on one processor alone, beside whatever else does.
    fn on_one_processor() {
        let mut one = CpuSet::new();
        one.set(0);
        sched_setaffinity(None, &one).unwrap();
    }

    #[tokio::test]
    async fn a_task_that_waits_for_the_processor_is_not_given_up() {
        let time_limit = Duration::from_secs(1);
        let threads = KeyThreads::start(1, time_limit, Priority::Lowest).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        let busy = thread::spawn(move || {
            on_one_processor();
            while !is_done.load(Ordering::Relaxed) {}
        });
        let began = Instant::now();
        let task = move || {
            on_one_processor();
            let of_this_thread = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
            let enough = of_this_thread() + Duration::from_millis(50);
            while of_this_thread() < enough {}
            began.elapsed()
        };
        let took = threads.run(task).await;
        done.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        assert!(took.unwrap() > 2 * time_limit, "it had to wait for {took:?}");
    }

    #[tokio::test]
    async fn threads_have_a_low_priority() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let own = nice();
        assert_eq!(threads(1).run(nice).await, Ok(19));
        let idle = KeyThreads::start(1, LONG, Priority::Idle).unwrap();
        let policy = idle.run(|| thread_schedule_policy().unwrap()).await.unwrap();
        assert_eq!(policy, ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle));
        assert_eq!(nice(), own, "other threads keep their priority");
    }

    #[tokio::test]
    async fn a_thread_makes_many_keys() {
        let threads = threads(1);
        let mut seen = HashSet::<ThreadId>::new();
        for _ in 0..200 {
            seen.insert(threads.run(|| thread::current().id()).await.unwrap());
        }
        // tokio adds a thread if a task comes before all threads are idle again after the tasks before: several on a busy machine, not many.
        assert!(seen.len() < 100, "{} threads for 200 tasks", seen.len());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_tasks_run_at_once_than_there_are_threads() {
        let threads = Arc::new(threads(2));
        let running = Arc::new(Mutex::new((0_u32, 0_u32)));
        let mut tasks = JoinSet::new();
        for _ in 0..50 {
            let (threads, running) = (Arc::clone(&threads), Arc::clone(&running));
            tasks.spawn(async move {
                let task = move || {
                    let mut count = running.lock().unwrap();
                    count.0 += 1;
                    count.1 = count.1.max(count.0);
                    drop(count);
                    thread::sleep(Duration::from_millis(1));
                    running.lock().unwrap().0 -= 1;
                };
                threads.run(task).await.unwrap();
                threads.run(|| ()).await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let most = threads.run(move || running.lock().unwrap().1).await.unwrap();
        assert_eq!(most, 2);
    }

    thread_local! {
        /// Dropped when its thread is gone.
        static KEPT: RefCell<Option<Arc<()>>> = const { RefCell::new(None) };
    }

    #[tokio::test]
    async fn idle_threads_are_gone_after_the_end_and_start_nothing_more() {
        let threads = threads(2);
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        threads.run(move || KEPT.set(Some(held))).await.unwrap();
        assert_eq!(Arc::strong_count(&alive), 2, "the idle thread lives");
        assert!(threads.end(LONG).await);
        assert_eq!(Arc::strong_count(&alive), 1, "the idle thread is gone, with what it kept");
        assert_eq!(threads.run(|| 1).await, Err(ThreadError::Ended));
        assert!(threads.end(LONG).await, "a second time");
    }

    #[tokio::test]
    async fn the_end_waits_for_a_task_at_work_and_not_for_one_that_hangs() {
        for hangs in [false, true] {
            let threads = Arc::new(threads(1));
            let (release, held) = mpsc::channel::<()>();
            let (begun_sender, begun) = oneshot::channel();
            let at_work = Arc::clone(&threads);
            let task = tokio::spawn(async move {
                let task = move || {
                    let _ = begun_sender.send(());
                    held.recv().is_ok()
                };
                at_work.run(task).await
            });
            begun.await.unwrap();
            if hangs {
                assert!(!threads.end(Duration::from_millis(50)).await);
                release.send(()).unwrap();
            } else {
                let (ended, ()) = tokio::join!(threads.end(LONG), async {
                    release.send(()).unwrap();
                });
                assert!(ended);
            }
            assert_eq!(task.await.unwrap(), Ok(true), "what was begun has its result");
        }
    }

    #[tokio::test]
    async fn a_task_that_the_operating_system_gives_no_thread_is_not_run() {
        assert_eq!(KeyThreads::that_get_no_thread().run(|| 1).await, Err(ThreadError::NoThread));
    }
}
