//! Builds the apalis worker, starts it again when it ends, and drains it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use apalis::prelude::{BackendExt, BoxDynError, Data, Event, EventListenerExt, WorkerBuilder, WorkerBuilderExt};
use apalis_sqlite::SqliteStorage;
use futures::stream;
use shared::job::{GENERATE_CSR_QUEUE, GenerateCsrJob};
use sqlx::SqlitePool;
use tokio::{sync::watch, time::Instant};

use crate::{jobs::generate_csr::Generator, poll::EventsAndTicks};

/// The backstop, should an event be missed; it also finds the jobs that were to wait.
const TICK: Duration = Duration::from_millis(500);
const HEARTBEAT: Duration = Duration::from_secs(10);
const MISSED_HEARTBEATS: usize = 3;

/// A worker that ran this long starts its back-off anew.
const STEADY: Duration = Duration::from_mins(1);

/// Starts in this process: every start has a name of its own, since a job under a known name would stay running for ever.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// Keeps one apalis worker running until told to stop; `alive` says whether it does.
pub async fn supervise(
    queue: SqlitePool,
    generator: Arc<Generator>,
    concurrency: usize,
    alive: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let boot = ulid::Ulid::generate();
    let mut failures = 0_u32;
    while !*stop.borrow() {
        let name = format!("{GENERATE_CSR_QUEUE}-{boot}-{}", STARTS.fetch_add(1, Ordering::Relaxed));
        let started = Instant::now();
        let ended = run(&name, &queue, Arc::clone(&generator), concurrency, alive.clone(), stop.clone()).await;
        alive.send_replace(false);
        match ended {
            Ok(()) => return,
            Err(error) => {
                failures = if started.elapsed() > STEADY { 0 } else { failures.saturating_add(1) };
                let pause = Duration::from_millis(200 << failures.min(6));
                tracing::warn!(worker = name, %error, ?pause, "the worker ended and is started again");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
        }
    }
}

async fn run(
    name: &str,
    queue: &SqlitePool,
    generator: Arc<Generator>,
    concurrency: usize,
    alive: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), BoxDynError> {
    let events =
        Box::pin(stream::unfold(
            generator.store.enqueued(),
            |mut events| async move { events.changed().await.ok().map(|()| ((), events)) },
        ));
    let config = apalis_sqlite::Config::default()
        .queue(GENERATE_CSR_QUEUE)
        .batch_size(1)
        .heartbeat_interval(HEARTBEAT)
        .missed_heartbeats(MISSED_HEARTBEATS);
    let backend = SqliteStorage::<GenerateCsrJob>::new(queue).with_config(config).poll_with_strategy(EventsAndTicks::new(events, TICK));
    let worker = WorkerBuilder::new(name)
        .backend(backend)
        .data(generator)
        .concurrency(concurrency)
        .on_event(move |_, event| {
            if matches!(event, Event::Start) {
                alive.send_replace(true);
            }
        })
        .build(handle);
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
        Ok::<(), std::io::Error>(())
    };
    worker.run_until(stopped).await.map_err(Into::into)
}

/// Everything that can go wrong is dealt with inside: an error that apalis sees would leave the job running.
async fn handle(job: GenerateCsrJob, generator: Data<Arc<Generator>>) -> Result<(), BoxDynError> {
    let Some(id) = job.custom_csr_id() else {
        tracing::error!("a job names no custom CSR and is dropped");
        return Ok(());
    };
    generator.run(id).await;
    Ok(())
}
