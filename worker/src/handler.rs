//! Runs the jobs that an apalis worker fetches, and counts those that run.

use std::sync::Arc;

use apalis::prelude::{BoxDynError, Data};
use shared::job::{DeliverJob, GenerateCsrJob, IncidentJob};
use tokio::sync::watch;

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

/// Runs a job. It never returns an error: apalis would leave the job running.
///
/// Without the current master key it leaves the row to another worker, and keeps its place until the master key is there: when all places are
/// taken, this worker takes no more jobs.
pub async fn generate(job: GenerateCsrJob, handler: Data<Handler<Generator>>) -> Result<(), BoxDynError> {
    let running = Running::new(&handler);
    match job.custom_csr_id() {
        None => tracing::error!("a job was dropped: it names no custom CSR"),
        // It was fetched while the process began to stop: another process gets a job for the row immediately.
        Some(id) if *handler.stop.borrow() => handler.runner.give_back(id).await,
        Some(id) if handler.runner.maker.sealer.lacks().is_some() => handler.runner.give_back(id).await,
        Some(id) => handler.runner.run(id).await,
    }
    running.finish();
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
    let running = Running::new(&handler);
    match job.webhook_id() {
        None => tracing::error!("a job was dropped: it names no webhook"),
        Some(id) => Arc::clone(&handler.runner).run(id, handler.stop.clone()).await,
    }
    running.finish();
    Ok(())
}

/// Runs the job of a plan. It never returns an error: another job does what is left.
pub async fn rekey(job: IncidentJob, handler: Data<Handler<Rekeyer>>) -> Result<(), BoxDynError> {
    let running = Running::new(&handler);
    match job.incident_id() {
        None => tracing::error!("a job was dropped: it names no plan"),
        Some(id) => handler.runner.run(id, handler.stop.clone()).await,
    }
    running.finish();
    Ok(())
}
