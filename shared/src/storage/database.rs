//! An open database: the storage on it, and what the job queue's workers need.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    Access, CopyError, Dialect, Location, OpenError, Queue, Signals, Store, StoreError,
    custom_csrs::{Accepting, CustomCsrs, Reading},
    engine::{Batch, OpenFile, Opened, Sql, Tasks, database_words, open_postgres, open_sqlite},
    generation::Completing,
    signals::{Notifications, OUTBOX},
};
use crate::{
    clock::Timestamp,
    ids::{CustomCsrId, Scope, TenantId},
};

/// An open database.
pub struct Database {
    /// The storage.
    pub store: Arc<dyn Store>,
    /// For the workers of the job queue.
    pub queue: Queue,
    /// Migrations that opening it ran.
    pub migrated: usize,
}

impl Database {
    /// Opens it; creates and migrates it where needed.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn open(location: &Location, access: Access) -> Result<Self, OpenError> {
        let tasks = Tasks::new();
        match location {
            Location::Sqlite(path) => {
                let (opened, file) = open_sqlite(path, access).await?;
                Ok(Self::on(&opened, Arc::new(Signals::new(None)), tasks, Some(file)))
            }
            Location::Postgres(options) => {
                let options = options.clone().application_name("csrd");
                let opened = open_postgres(&options, access).await?;
                let (others, outbox) = mpsc::channel(OUTBOX);
                let signals = Arc::new(Signals::new(Some(others)));
                let notifications = Notifications::new(options);
                tasks.spawn(notifications.clone().send(outbox));
                tasks.spawn(notifications.receive(Arc::clone(&signals)));
                Ok(Self::on(&opened, signals, tasks, None))
            }
        }
    }

    fn on<DB: Dialect>(opened: &Opened<DB>, signals: Arc<Signals>, tasks: Tasks, file: Option<OpenFile>) -> Self {
        let store = Arc::new(SqlStore::new(Sql::new(opened), signals, tasks, file));
        Self { store, queue: opened.queue.clone(), migrated: opened.migrated }
    }

    /// Copies SQLite as it is at one moment into an empty file, beside whoever writes.
    ///
    /// # Errors
    ///
    /// [`CopyError`]; what the file holds then is of no use.
    pub async fn copy_to(&self, file: &Path) -> Result<(), CopyError> {
        let Queue::Sqlite(writer) = &self.queue else {
            return Err(CopyError("PostgreSQL is copied by pg_dump".to_owned()));
        };
        let name = file.to_str().ok_or_else(|| CopyError("the name of the copy is not UTF-8".to_owned()))?;
        let copied = async {
            let mut turn = writer.turn().await?;
            sqlx::query("VACUUM INTO $1").bind(name).execute(turn.connection()?).await?;
            turn.done();
            Ok(())
        };
        copied.await.map_err(|error| CopyError(database_words(&error)))
    }

    /// Closes every connection. Whoever serves gives the database back in order.
    pub async fn close(self) {
        if let Queue::Postgres(pool) = &self.queue {
            pool.close().await;
        }
        self.store.close().await;
    }
}

/// The storage on one database: the only implementation of [`Store`], written once for every database.
///
/// It owns its tasks: whoever holds it holds them.
pub struct SqlStore<DB: Dialect> {
    pub(super) sql: Arc<Sql<DB>>,
    pub(super) signals: Arc<Signals>,
    pub(super) accepting: Batch<Accepting<DB>>,
    pub(super) completing: Batch<Completing<DB>>,
    pub(super) reading: Batch<Reading<DB>>,
    tasks: Tasks,
    /// On SQLite.
    file: Mutex<Option<OpenFile>>,
}

impl<DB: Dialect> SqlStore<DB> {
    fn new(sql: Sql<DB>, signals: Arc<Signals>, tasks: Tasks, file: Option<OpenFile>) -> Self {
        let sql = Arc::new(sql);
        let accepting = Accepting { sql: Arc::clone(&sql), signals: Arc::clone(&signals) };
        let completing = Completing { sql: Arc::clone(&sql), signals: Arc::clone(&signals) };
        tasks.spawn(sql.keep_fresh());
        Self {
            accepting: Batch::new(&accepting, sql.writing_lanes(), &tasks),
            completing: Batch::new(&completing, sql.writing_lanes(), &tasks),
            reading: Batch::new(&Reading { sql: Arc::clone(&sql) }, sql.reading_lanes(), &tasks),
            sql,
            signals,
            tasks,
            file: Mutex::new(file),
        }
    }
}

#[async_trait]
impl<DB: Dialect> Store for SqlStore<DB> {
    async fn ping(&self) -> Result<(), StoreError> {
        // As requests do, through the same queue: an ID and a scope that do not exist.
        let nobody = TenantId::parse("ready").ok_or_else(|| StoreError::Internal("no ID".to_owned()))?;
        self.find_custom_csr(&Scope::Zone(nobody), CustomCsrId::new(Timestamp::from_micros(0))).await.map(drop)
    }

    fn moved(&self) -> Option<String> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.moved()
    }

    async fn failed(&self) {
        self.tasks.panicked().await;
    }

    async fn close(&self) {
        self.tasks.end().await;
        self.sql.close().await;
    }

    fn signals(&self) -> &Signals {
        &self.signals
    }
}
