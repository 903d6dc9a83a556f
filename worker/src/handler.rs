//! Runs the jobs that an apalis worker fetches, and counts those that run.

use std::{panic::resume_unwind, sync::Arc};

use apalis::prelude::{BoxDynError, Data};
use shared::job::{DeliverJob, GenerateCsrJob, IncidentJob};
use tokio::{sync::watch, task::JoinSet};

use crate::{deliver::Deliverer, generate::Generator, incident::Rekeyer};

/// Runs jobs.
pub struct Handler<R> {
    /// Does the work of the jobs.
    pub runner: Arc<R>,
    /// Tells it to take no more jobs.
    pub stop: watch::Receiver<bool>,
    /// The number of jobs that run.
    pub running: watch::Sender<usize>,
    /// Whether jobs were cut off, and none was finished since.
    pub cut: watch::Sender<bool>,
}

impl<R> Clone for Handler<R> {
    fn clone(&self) -> Self {
        Self { runner: Arc::clone(&self.runner), stop: self.stop.clone(), running: self.running.clone(), cut: self.cut.clone() }
    }
}

/// Counts a running job. If it is dropped before it is finished, the job was cut off: its worker ended, as it does when the database is gone.
struct Running {
    count: watch::Sender<usize>,
    cut: watch::Sender<bool>,
    is_finished: bool,
}

impl Running {
    fn new<R>(handler: &Handler<R>) -> Self {
        handler.running.send_modify(|count| *count += 1);
        Self { count: handler.running.clone(), cut: handler.cut.clone(), is_finished: false }
    }

    fn finish(mut self) {
        self.is_finished = true;
        self.cut.send_replace(false);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_finished {
            self.cut.send_replace(true);
        }
        // Last: whoever waits until none runs then asks whether one was cut off.
        self.count.send_modify(|count| *count -= 1);
    }
}

impl<R> Handler<R> {
    /// Runs a job in a task of its own, and counts it until it is finished.
    async fn run<J: Future<Output = ()> + Send + 'static>(&self, job: impl FnOnce(Arc<R>, watch::Receiver<bool>) -> J) {
        let (running, job) = (Running::new(self), job(Arc::clone(&self.runner), self.stop.clone()));
        in_its_own_task(async move {
            job.await;
            running.finish();
        })
        .await;
    }
}

/// Runs a job in a task of its own, which ends with this future.
///
/// apalis polls its jobs and its queue in one task, and asks the database for another job each time that task wakes: a job that waits for 64
/// keys would make it ask hundreds of times.
async fn in_its_own_task(job: impl Future<Output = ()> + Send + 'static) {
    let mut task = JoinSet::new();
    task.spawn(job);
    if let Some(Err(error)) = task.join_next().await
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

/// Runs a job. It never returns an error: apalis would leave the job running.
///
/// Without the current master key it leaves the row to another worker, and keeps its place until the master key is there: when all places are
/// taken, this worker takes no more jobs.
pub async fn generate(job: GenerateCsrJob, handler: Data<Handler<Generator>>) -> Result<(), BoxDynError> {
    handler
        .run(|runner, stop| async move {
            let is_stopping = *stop.borrow();
            match job.custom_csr_id() {
                None => tracing::error!("a job was dropped: it names no custom CSR"),
                // It was fetched while the process began to stop: another process gets a job for the row immediately.
                Some(id) if is_stopping || runner.maker.sealer.lacks().is_some() => runner.give_back(id).await,
                Some(id) => runner.run(id).await,
            }
        })
        .await;
    let (sealer, mut stop) = (&handler.runner.maker.sealer, handler.stop.clone());
    if sealer.lacks().is_some() {
        tokio::select! {
            () = sealer.can_seal() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    Ok(())
}

/// Runs the job of a webhook. It never returns an error: what is not delivered is due again.
pub async fn deliver(job: DeliverJob, handler: Data<Handler<Deliverer>>) -> Result<(), BoxDynError> {
    handler
        .run(|runner, stop| async move {
            match job.webhook_id() {
                None => tracing::error!("a job was dropped: it names no webhook"),
                Some(id) => runner.run(id, stop).await,
            }
        })
        .await;
    Ok(())
}

/// Runs the job of a plan. It never returns an error: another job does what is left.
pub async fn rekey(job: IncidentJob, handler: Data<Handler<Rekeyer>>) -> Result<(), BoxDynError> {
    handler
        .run(|runner, stop| async move {
            match job.incident_id() {
                None => tracing::error!("a job was dropped: it names no plan"),
                Some(id) => runner.run(id, stop).await,
            }
        })
        .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        panic::AssertUnwindSafe,
        sync::atomic::{AtomicU32, Ordering},
        task::{Context, Poll, Wake, Waker},
        time::Duration,
    };

    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often the task of a worker is woken.
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_job_that_waits_many_times_wakes_its_worker_once() {
        let (finished, mut is_finished) = oneshot::channel();
        let job = async move {
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            finished.send(()).unwrap();
        };
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut running = Box::pin(in_its_own_task(job));
        assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        (&mut is_finished).await.unwrap();
        while woken.0.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(running.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(()));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_job_ends_when_its_worker_does() {
        let (held, mut is_dropped) = oneshot::channel::<()>();
        let mut running = Box::pin(in_its_own_task(async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut running).await.is_err());
        drop(running);
        (&mut is_dropped).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_panic_of_a_job_is_one_of_its_worker() {
        let panicked = AssertUnwindSafe(in_its_own_task(async { panic!("on purpose") })).catch_unwind().await;
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"on purpose"));
    }
}
