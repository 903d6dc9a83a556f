//! The only implementation of [`Store`], written once for every database.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::Pool;
use tokio::sync::mpsc::Sender;

use super::{
    CustomCsrs, Dialect, Signals, Store, StoreError, connect::Held, dialect::NewJob, group_commit::GroupedWrite, group_read::GroupedRead,
    kept::Kept, lent::Lent, value::Value,
};
use crate::{
    clock::Timestamp,
    ids::{CustomCsrId, Scope, TenantId},
};

/// The storage on one database.
pub struct SqlStore<DB: Dialect> {
    /// For reads.
    pub(super) read: Pool<DB>,
    /// Of those, what single statements use.
    pub(super) kept: Arc<Kept<DB>>,
    /// For writes. On SQLite one connection, so that writers queue here, in order, instead of polling for the file's lock.
    pub(super) write: Pool<DB>,
    pub(super) signals: Arc<Signals>,
    /// How long one statement may take; no limit where the database has its own.
    pub(super) statement_time: Duration,
    /// Where writes share commits.
    pub(super) group: Option<Sender<GroupedWrite>>,
    /// Where reads share statements.
    pub(super) reads: Option<Sender<GroupedRead>>,
    /// What ends with the store.
    pub(super) held: Held,
}

impl<DB: Dialect> SqlStore<DB> {
    /// A store on these pools, which may be the same one; a statement may take `statement_time`.
    #[must_use]
    pub fn new(read: Pool<DB>, write: Pool<DB>, signals: Arc<Signals>, statement_time: Duration) -> Self {
        Self {
            kept: Arc::new(Kept::new(read.clone())),
            read,
            write,
            signals,
            statement_time,
            group: None,
            reads: None,
            held: Held::default(),
        }
    }

    pub(super) async fn begin_write(&self) -> Result<Lent<DB>, StoreError> {
        self.begin(&self.write, DB::BEGIN_WRITE).await
    }

    /// A transaction of several callers' writes: where one of them has to wait for a lock, it ends soon.
    pub(super) async fn begin_group(&self) -> Result<Lent<DB>, StoreError> {
        self.begin(&self.write, DB::BEGIN_GROUP).await
    }

    /// A transaction whose reads all see one state.
    pub(super) async fn begin_read(&self) -> Result<Lent<DB>, StoreError> {
        self.begin(&self.read, DB::BEGIN_READ).await
    }

    async fn begin(&self, pool: &Pool<DB>, statement: &'static str) -> Result<Lent<DB>, StoreError> {
        let mut tx = self.lent(pool).await?;
        let begun = self.in_time(DB::simple(tx.for_statement()?, statement)).await;
        Self::checked(&mut tx, begun)?;
        tx.in_transaction(true);
        Ok(tx)
    }

    /// A connection of this pool.
    async fn lent(&self, pool: &Pool<DB>) -> Result<Lent<DB>, StoreError> {
        self.kept.return_stale();
        pool.acquire().await.map(|connection| Lent::new(connection, None)).map_err(|error| store_error::<DB>(&error))
    }

    pub(super) async fn rows(&self, statement: &'static str, values: Vec<Value>) -> Result<Vec<DB::Row>, StoreError> {
        let connection = self.kept.acquire().await.map_err(|error| store_error::<DB>(&error))?;
        self.fetch(&mut Lent::new(connection, Some(Arc::clone(&self.kept))), statement, values).await
    }

    /// Runs one writing statement, which is a transaction of its own: one trip to the database; the number of rows that it changed.
    pub(super) async fn write(&self, statement: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let mut connection = self.lent(&self.write).await?;
        let done = self.in_time(DB::execute(connection.for_statement()?, statement, values)).await;
        Self::committed(&mut connection, done)
    }

    /// Likewise; its rows.
    pub(super) async fn write_returning(&self, statement: &'static str, values: Vec<Value>) -> Result<Vec<DB::Row>, StoreError> {
        let mut connection = self.lent(&self.write).await?;
        let done = self.in_time(DB::fetch(connection.for_statement()?, statement, values)).await;
        Self::committed(&mut connection, done)
    }

    pub(super) async fn fetch(
        &self,
        connection: &mut Lent<DB>,
        statement: &'static str,
        values: Vec<Value>,
    ) -> Result<Vec<DB::Row>, StoreError> {
        let done = self.in_time(DB::fetch(connection.for_statement()?, statement, values)).await;
        Self::checked(connection, done)
    }

    pub(super) async fn execute(&self, connection: &mut Lent<DB>, statement: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let done = self.in_time(DB::execute(connection.for_statement()?, statement, values)).await;
        Self::checked(connection, done)
    }

    pub(super) async fn push(&self, connection: &mut Lent<DB>, job: NewJob) -> Result<(), StoreError> {
        let done = self.in_time(DB::push_job(connection.for_statement()?, job)).await;
        Self::checked(connection, done)
    }

    pub(super) async fn commit(&self, mut tx: Lent<DB>) -> Result<(), StoreError> {
        let done = self.in_time(DB::simple(tx.for_statement()?, "COMMIT")).await;
        Self::committed(&mut tx, done)?;
        tx.in_transaction(false);
        Ok(())
    }

    /// [`None`] where no answer came in time.
    async fn in_time<T>(&self, statement: impl Future<Output = sqlx::Result<T>> + Send) -> Option<sqlx::Result<T>> {
        tokio::time::timeout(self.statement_time, statement).await.ok()
    }

    /// What a statement came to. A connection that broke, or that did not answer, is not used again.
    fn checked<T>(connection: &mut Lent<DB>, done: Option<sqlx::Result<T>>) -> Result<T, StoreError> {
        let done = done.ok_or_else(|| StoreError::Unavailable("no answer in time".to_owned()))?;
        if is_answer(&done) {
            connection.answered();
        }
        done.map_err(|error| store_error::<DB>(&error))
    }

    /// The same for what ends in a commit: it may have happened although its answer is lost.
    fn committed<T>(connection: &mut Lent<DB>, done: Option<sqlx::Result<T>>) -> Result<T, StoreError> {
        match &done {
            Some(Err(error)) if DB::is_ambiguous(error) => Err(StoreError::Ambiguous(error.to_string())),
            None => Err(StoreError::Ambiguous("no answer in time".to_owned())),
            Some(_) => Self::checked(connection, done),
        }
    }
}

/// Whether the database is done with the statement.
const fn is_answer<T>(done: &sqlx::Result<T>) -> bool {
    matches!(done, Ok(_) | Err(sqlx::Error::Database(_) | sqlx::Error::RowNotFound | sqlx::Error::Encode(_)))
}

#[async_trait]
impl<DB: Dialect> Store for SqlStore<DB> {
    async fn ping(&self) -> Result<(), StoreError> {
        // As requests do, through the same queue: an ID and a scope that do not exist.
        let nobody = TenantId::parse("ready").ok_or_else(|| StoreError::Internal("no ID".to_owned()))?;
        self.find_custom_csr(&Scope::Zone(nobody), CustomCsrId::new(Timestamp::from_micros(0))).await.map(drop)
    }

    fn moved(&self) -> Option<String> {
        self.held.file.as_ref()?.moved()
    }

    async fn close(&self) {
        self.kept.close().await;
        // Connections that close at the same time may each take the other for the last one, and leave the log.
        if let (Some(checkpoint), Ok(mut connection)) = (DB::CHECKPOINT, self.write.acquire().await)
            && let Err(error) = DB::simple(&mut connection, checkpoint).await
        {
            tracing::warn!(%error, "the write-ahead log was not emptied");
        }
        self.write.close().await;
    }

    fn signals(&self) -> &Signals {
        &self.signals
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
