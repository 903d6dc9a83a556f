//! The job queue on SQLite: apalis' statements, on the one connection on which all write.
//!
//! apalis' own backend takes that connection out of a pool and begins a transaction for each statement. sqlx hands each step to the
//! connection's thread and back: BEGIN, the statement, COMMIT, and the question whether the connection lives. Here it is one.

use std::{
    marker::PhantomData,
    task::{Context, Poll},
};

use apalis::prelude::{Backend, Task, WorkerContext};
use apalis_core::backend::{
    BackendConfig, WireFormatBackend, WorkerFilter,
    finalize::Durable,
    persistence::{Persisted, Persistence, TaskEvent, TaskPersistLayer},
};
use apalis_sqlite::{
    Config, Error, JsonCodec,
    queries::{ack_tasks, fetch_next, keep_alive, lock_tasks, push_tasks, reenqueue_abandoned, reenqueue_orphaned, register_worker},
};
use serde_json::Value;
use shared::storage::{Writer, WriterTurn};
use sqlx::{Connection, Sqlite, Transaction};
use ulid::Ulid;

/// The backend of an apalis worker.
pub struct SqliteQueue<Args> {
    persisted: Persisted<Statements>,
    codec: JsonCodec,
    args: PhantomData<fn() -> Args>,
}

impl<Args> SqliteQueue<Args> {
    /// On this connection.
    pub fn new(writer: Writer, config: Config) -> Self {
        Self { persisted: Persisted::new(Statements { writer, config }), codec: JsonCodec::default(), args: PhantomData }
    }
}

impl<Args> Backend for SqliteQueue<Args> {
    type Task = Task<Vec<u8>>;
    type Error = Error;

    fn poll_ready(&mut self, context: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), Error>> {
        let interval = self.persisted.config.heartbeat_interval;
        self.persisted.poll_ready(context, worker, interval)
    }

    fn poll_next(&mut self, context: &mut Context<'_>, worker: &WorkerContext) -> Poll<Option<Result<Self::Task, Error>>> {
        self.persisted.poll_next(context, worker)
    }

    fn poll_close(&mut self, context: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), Error>> {
        self.persisted.poll_close(context, worker)
    }
}

impl<Args> BackendConfig for SqliteQueue<Args> {
    type Args = Args;
    type Id = Ulid;
    type Kind = Durable;
    type Config = Config;
    type Layer = TaskPersistLayer<JsonCodec<Value>, Value>;

    fn config(&self) -> &Config {
        &self.persisted.config
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Self::Layer {
        let Config { batch_size, persist_results, lock_tasks, .. } = self.persisted.config;
        self.persisted.layer(JsonCodec::default(), batch_size).persist_results(persist_results).lock_tasks(lock_tasks)
    }
}

impl<Args> WireFormatBackend for SqliteQueue<Args> {
    type Codec = JsonCodec<Vec<u8>>;
    type Compact = Vec<u8>;

    fn codec(&self) -> &Self::Codec {
        &self.codec
    }
}

/// Runs the statements of the queue. One statement is a transaction of its own.
#[derive(Clone)]
struct Statements {
    writer: Writer,
    config: Config,
}

/// What has to be seen together.
async fn begun(turn: &mut WriterTurn) -> sqlx::Result<Transaction<'_, Sqlite>> {
    turn.connection()?.begin_with("BEGIN IMMEDIATE").await
}

impl Persistence for Statements {
    type Compact = Vec<u8>;
    type Response = Value;
    type Error = Error;

    async fn register(&mut self, worker: &WorkerContext) -> Result<(), Error> {
        let Config { heartbeat_interval, queue, .. } = &self.config;
        let dead_for = seconds(*heartbeat_interval);
        let mut turn = self.writer.turn().await?;
        let mut tx = begun(&mut turn).await?;
        reenqueue_orphaned(&mut *tx, dead_for, queue.as_ref(), &WorkerFilter::Only(worker.name().to_owned())).await?;
        register_worker(&mut *tx, &self.config, worker, "SqliteStorage").await?;
        tx.commit().await?;
        turn.done();
        Ok(())
    }

    async fn heartbeat(&mut self, worker: &WorkerContext) -> Result<(), Error> {
        let dead_for = seconds(self.config.orphaned_duration());
        let mut turn = self.writer.turn().await?;
        let mut tx = begun(&mut turn).await?;
        keep_alive(&mut *tx, &self.config, worker).await?;
        let others = WorkerFilter::AllExcept(worker.name().to_owned());
        reenqueue_orphaned(&mut *tx, dead_for, self.config.queue.as_ref(), &others).await?;
        tx.commit().await?;
        turn.done();
        Ok(())
    }

    async fn fetch_next(&mut self, worker: &WorkerContext) -> Result<Vec<Task<Vec<u8>>>, Error> {
        let mut turn = self.writer.turn().await?;
        let tasks = fetch_next(turn.connection()?, &self.config, worker).await?;
        turn.done();
        Ok(tasks)
    }

    async fn reenqueue_abandoned(&mut self, tasks: Vec<Task<Vec<u8>>>, worker: &WorkerContext) -> Result<u64, Error> {
        let ids = tasks.iter().filter_map(|task| Some(task.task_id()?.to_string())).collect();
        let mut turn = self.writer.turn().await?;
        let count = reenqueue_abandoned(turn.connection()?, self.config.queue.as_ref(), worker.name(), &ids).await?;
        turn.done();
        Ok(count)
    }

    async fn handle_events(&mut self, events: Vec<TaskEvent<Value>>, worker: &WorkerContext) -> Result<(), Error> {
        let (mut locked, mut ended) = (Vec::new(), Vec::new());
        for event in &events {
            match event {
                TaskEvent::Lock { task_id, .. } => locked.push(task_id.to_string()),
                TaskEvent::Complete(result) => ended.push(result),
                _ => {}
            }
        }
        let mut turn = self.writer.turn().await?;
        if !locked.is_empty() {
            lock_tasks(turn.connection()?, &locked, worker.name()).await?;
        }
        if !ended.is_empty() {
            ack_tasks(turn.connection()?, &ended, worker.name()).await?;
        }
        turn.done();
        Ok(())
    }

    async fn push_tasks(&mut self, tasks: Vec<Task<Vec<u8>>>) -> Result<(), Error> {
        let mut turn = self.writer.turn().await?;
        let mut tx = begun(&mut turn).await?;
        push_tasks(&mut *tx, self.config.queue.as_ref(), &tasks).await?;
        tx.commit().await?;
        turn.done();
        Ok(())
    }
}

fn seconds(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
