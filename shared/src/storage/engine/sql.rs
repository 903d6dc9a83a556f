//! Runs statements: one at a time, or several in a transaction. Each has a time limit.

use std::{future::Future, time::Duration};

use super::{
    Dialect, Failure, Lent, Opened, Reader, Statement, Value,
    connections::Connections,
    pool::{PoolUse, TURN_WAIT},
    statement::statements,
};
use crate::storage::StoreError;

statements! {
    BEGIN_WRITE { sqlite: "BEGIN IMMEDIATE", postgres: "BEGIN",
    };
    /// All reads see one state.
    BEGIN_READ { sqlite: "BEGIN", postgres: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    };
    COMMIT = "COMMIT";
    /// Empties the write-ahead log into the database.
    CHECKPOINT { sqlite: "PRAGMA wal_checkpoint(TRUNCATE)",
    };
}

/// The connections to one database.
pub struct Sql<DB: Dialect> {
    /// For reads.
    read: Connections<DB>,
    /// For writes. On SQLite one connection, so that writers queue here, in order, instead of polling for the file's lock.
    write: Connections<DB>,
    statement_time: Duration,
}

impl<DB: Dialect> Sql<DB> {
    /// On the connections of a database that was opened.
    pub fn new(opened: &Opened<DB>) -> Self {
        Self { read: opened.read.clone(), write: opened.write.clone(), statement_time: opened.statement_time }
    }

    /// Looks after connections that nobody used for a while, for as long as this is used.
    pub fn keep_fresh(&self) -> impl Future<Output = ()> + Send + use<DB> {
        let (read, write) = (self.read.keep_fresh(), DB::WRITES_APART.then(|| self.write.keep_fresh()));
        async move {
            match write {
                Some(write) => drop(tokio::join!(read, write)),
                None => read.await,
            }
        }
    }

    /// How many tasks may read at once, again and again: connections are left for all others.
    pub fn reading_lanes(&self) -> usize {
        lanes(&self.read)
    }

    /// How many may write.
    pub fn writing_lanes(&self) -> usize {
        lanes(&self.write)
    }

    /// How many connections each pool has.
    pub fn pools(&self) -> Vec<PoolUse> {
        if DB::WRITES_APART { vec![self.read.in_use("read"), self.write.in_use("write")] } else { vec![self.write.in_use("store")] }
    }

    /// Begins a transaction that will write.
    pub async fn begin_write(&self) -> Result<Lent<DB>, StoreError> {
        self.begin(&self.write, BEGIN_WRITE).await
    }

    /// Begins a transaction whose reads all see one state.
    pub async fn begin_read(&self) -> Result<Lent<DB>, StoreError> {
        self.begin(&self.read, BEGIN_READ).await
    }

    async fn begin(&self, connections: &Connections<DB>, statement: Statement) -> Result<Lent<DB>, StoreError> {
        let mut tx = lent(connections).await?;
        tx.begin_by(statement);
        if !DB::SEVERAL_IN_ONE {
            self.begin_now(&mut tx).await?;
        }
        Ok(tx)
    }

    /// Begins a transaction that no statement has begun yet.
    async fn begin_now(&self, tx: &mut Lent<DB>) -> Result<(), StoreError> {
        let Some(begin) = tx.begins() else { return Ok(()) };
        let done = self.in_time(DB::simple(tx.for_statement()?, begin)).await;
        checked(tx, done)
    }

    /// Reads rows by one statement.
    pub async fn rows(&self, statement: Statement, values: Vec<Value>) -> Result<Vec<DB::Row>, StoreError> {
        self.fetch(&mut lent(&self.read).await?, statement, values).await
    }

    /// Runs one writing statement, which is a transaction of its own: one trip to the database; the number of rows that it changed.
    pub async fn write(&self, statement: Statement, values: Vec<Value>) -> Result<u64, StoreError> {
        let mut connection = lent(&self.write).await?;
        let done = self.in_time(DB::execute(connection.for_statement()?, statement, values)).await;
        committed(&mut connection, done)
    }

    /// Likewise; its rows.
    pub async fn write_returning(&self, statement: Statement, values: Vec<Value>) -> Result<Vec<DB::Row>, StoreError> {
        let mut connection = lent(&self.write).await?;
        let done = self.in_time(DB::fetch(connection.for_statement()?, &[statement], values)).await;
        committed(&mut connection, done)
    }

    /// Runs a statement that counts within a transaction; its `total`.
    pub async fn total(&self, tx: &mut Lent<DB>, statement: Statement, values: Vec<Value>) -> Result<i64, StoreError> {
        let rows = self.fetch(tx, statement, values).await?;
        Ok(rows.first().map(|row| Reader::<DB>(row).int("total")).transpose()?.unwrap_or_default())
    }

    /// Runs a statement within a transaction; its rows.
    pub async fn fetch(&self, tx: &mut Lent<DB>, statement: Statement, values: Vec<Value>) -> Result<Vec<DB::Row>, StoreError> {
        if DB::words(statement).is_none() {
            return Ok(Vec::new());
        }
        let statements: Vec<_> = tx.begins().into_iter().chain([statement]).collect();
        let done = self.in_time(DB::fetch(tx.for_statement()?, &statements, values)).await;
        checked(tx, done)
    }

    /// Likewise; the number of rows that it changed.
    pub async fn execute(&self, tx: &mut Lent<DB>, statement: Statement, values: Vec<Value>) -> Result<u64, StoreError> {
        // In one trip the rows that were changed before would be counted too.
        self.begin_now(tx).await?;
        let done = self.in_time(DB::execute(tx.for_statement()?, statement, values)).await;
        checked(tx, done)
    }

    /// Commits. A transaction that is dropped instead is rolled back.
    pub async fn commit(&self, mut tx: Lent<DB>) -> Result<(), StoreError> {
        self.begin_now(&mut tx).await?;
        let done = self.in_time(DB::simple(tx.for_statement()?, COMMIT)).await;
        committed(&mut tx, done)?;
        tx.ended();
        Ok(())
    }

    /// Runs the last statement of a transaction and commits: in one trip to the database where it can.
    pub async fn commit_with(&self, mut tx: Lent<DB>, statement: Statement, values: Vec<Value>) -> Result<(), Failure> {
        if !DB::SEVERAL_IN_ONE {
            return match self.execute(&mut tx, statement, values).await {
                Ok(_) => self.commit(tx).await.map_err(Failure::without_answer),
                Err(error) => Err(tx.failure(error)),
            };
        }
        let statements: Vec<_> = tx.begins().into_iter().chain([statement, COMMIT]).collect();
        let done = self.in_time(DB::fetch(tx.for_statement().map_err(Failure::without_answer)?, &statements, values)).await;
        committed(&mut tx, done).map_err(Failure::of_commit)?;
        tx.ended();
        Ok(())
    }

    /// Closes the connections; on SQLite it empties the write-ahead log into the database before.
    pub async fn close(&self) {
        // On SQLite the last: connections that close at the same time may each take the other for the last one, and leave the log.
        if DB::words(CHECKPOINT).is_some() {
            self.read.close().await;
            if let Ok(mut connection) = lent(&self.write).await
                && let Err(error) = self.execute(&mut connection, CHECKPOINT, Vec::new()).await
            {
                tracing::warn!(%error, "the write-ahead log was not emptied");
            }
        }
        self.write.close().await;
    }

    /// [`None`] if no answer came in time.
    async fn in_time<T>(&self, statement: impl Future<Output = sqlx::Result<T>> + Send) -> Option<sqlx::Result<T>> {
        tokio::time::timeout(self.statement_time, statement).await.ok()
    }
}

fn lanes<DB: Dialect>(connections: &Connections<DB>) -> usize {
    (connections.most() / 2).clamp(1, 2) as usize
}

/// A connection, within the time of a turn. On SQLite the job queue's workers wait for the same one, and may do so for longer.
async fn lent<DB: Dialect>(connections: &Connections<DB>) -> Result<Lent<DB>, StoreError> {
    let lent = tokio::time::timeout(TURN_WAIT, connections.lend()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    lent.map_err(|error| store_error::<DB>(&error))
}

/// What a statement came to. A connection that broke, or that did not answer, is not used again.
fn checked<DB: Dialect, T>(connection: &mut Lent<DB>, done: Option<sqlx::Result<T>>) -> Result<T, StoreError> {
    let done = done.ok_or_else(|| StoreError::Unavailable("no answer in time".to_owned()))?;
    if matches!(done, Ok(_) | Err(sqlx::Error::Database(_) | sqlx::Error::RowNotFound | sqlx::Error::Encode(_))) {
        connection.answered();
    }
    done.map_err(|error| store_error::<DB>(&error))
}

/// The same for what ends in a commit: it may have happened although its answer is lost.
fn committed<DB: Dialect, T>(connection: &mut Lent<DB>, done: Option<sqlx::Result<T>>) -> Result<T, StoreError> {
    match &done {
        Some(Err(error)) if DB::is_ambiguous(error) => Err(StoreError::Ambiguous(error.to_string())),
        None => Err(StoreError::Ambiguous("no answer in time".to_owned())),
        Some(_) => checked(connection, done),
    }
}

fn store_error<DB: Dialect>(error: &sqlx::Error) -> StoreError {
    let text = error.to_string();
    match error {
        sqlx::Error::Database(database) if !DB::is_unavailable(database.as_ref()) => StoreError::Internal(text),
        sqlx::Error::Database(_)
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => StoreError::Unavailable(text),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Corrupt(text),
        _ => StoreError::Internal(text),
    }
}
