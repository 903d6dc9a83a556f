//! The only implementation of [`Store`], written once for every database.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::Pool;
use tokio::sync::mpsc::Sender;

use super::{
    Acceptance, Deletion, Dialect, GeneratedCsr, Generation, IDEMPOTENCY_KEY_LIFE, ListQuery, MasterKeyRow, NewCustomCsr, Page, Purge,
    Registration, ScopeGrant, SealedRow, Store, Sweep, Vitals,
    connect::Held,
    dialect::NewJob,
    group_commit::{GroupedWrite, Write, Written},
    group_read::GroupedRead,
    kept::Kept,
    lent::Lent,
    parameters::{Cut, page_statement, search_pattern, search_text},
    rows::Reader,
    signals::{Signal, Signals},
    statements as sql,
    value::{Value, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    bodies::edit::Edit,
    clock::Timestamp,
    custom_csr::CustomCsr,
    ids::{CustomCsrId, Scope, TenantId},
    job::GenerateCsrJob,
    storage::StoreError,
};

/// Rows that one transaction of a sweep looks at: a long outage must not make one long transaction.
const SWEEP_BATCH: i64 = 500;

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
    async fn grant_scope(
        &self,
        scope: &Scope,
        account: Option<&TenantId>,
        quota: Option<u32>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let account = account.map(ToString::to_string);
        let values = values![scope.to_string(), scope.kind(), account, quota.map(i64::from), now.micros()];
        let mut tx = self.begin_write().await?;
        self.execute(&mut tx, sql::GRANT_SCOPE, values).await?;
        self.record(&mut tx, &NewEntry::scope(Action::Grant, scope.into()), actor, now).await?;
        self.commit(tx).await
    }

    async fn revoke_scope(&self, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        if self.execute(&mut tx, sql::REVOKE_SCOPE, values![scope.to_string(), now.micros()]).await? == 0 {
            return Ok(false);
        }
        self.record(&mut tx, &NewEntry::scope(Action::Revoke, scope.into()), actor, now).await?;
        self.commit(tx).await?;
        Ok(true)
    }

    async fn list_scopes(&self, kind: &str) -> Result<Vec<ScopeGrant>, StoreError> {
        self.rows(sql::LIST_SCOPES, values![kind]).await?.iter().map(|row| Reader::<DB>(row).grant()).collect()
    }

    async fn find_scope(&self, scope: &Scope) -> Result<Option<ScopeGrant>, StoreError> {
        self.rows(sql::FIND_SCOPE, values![scope.to_string()]).await?.first().map(|row| Reader::<DB>(row).grant()).transpose()
    }

    async fn accept_custom_csr(&self, new: &NewCustomCsr, actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError> {
        match self.write_grouped(Write::Accept(new.clone(), actor.clone(), now)).await.and_then(Written::acceptance) {
            // The commit's answer was lost: what is there now decides, seen by a fresh connection.
            Err(StoreError::Ambiguous(lost)) => match self.find_custom_csr(&new.scope, new.id).await {
                Ok(Some(found)) => {
                    self.signals.send(Signal::Enqueued);
                    Ok(Acceptance::Accepted(Box::new(found)))
                }
                Ok(None) | Err(_) => Err(StoreError::Ambiguous(lost)),
            },
            other => other,
        }
    }

    async fn find_custom_csr(&self, scope: &Scope, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError> {
        match &self.reads {
            Some(reads) => self.read_grouped(reads, scope, id).await,
            None => self.find_alone(scope, id).await,
        }
    }

    async fn list_custom_csrs(&self, scope: &Scope, query: &ListQuery) -> Result<Page, StoreError> {
        let mut tx = self.begin_read().await?;
        let mut filter = values![
            scope.to_string(),
            query.status.map(|status| status.as_str().to_owned()),
            query.key_type.map(|key_type| key_type.as_str().to_owned()),
            query.search.as_deref().map(search_pattern),
        ];
        // Without a filter all of the scope's rows count, and their number is kept.
        let (count, values) =
            if query.is_filtered() { (sql::COUNT_CUSTOM_CSRS, filter.clone()) } else { (sql::COUNT_OF_SCOPE, values![scope.to_string()]) };
        let count = self.fetch(&mut tx, count, values).await?;
        let total = count.first().map(|row| Reader::<DB>(row).int("total")).transpose()?.unwrap_or_default();
        let Some(cut) = Cut::of(query, total) else { return Ok(Page { rows: Vec::new(), total: total.unsigned_abs() }) };
        filter.extend(values![cut.limit, cut.offset]);
        let rows = self.fetch(&mut tx, page_statement(query.order, cut.direction), filter).await?;
        let mut rows: Vec<_> = rows.iter().filter_map(|row| readable(&Reader::<DB>(row), scope)).collect();
        if cut.direction != query.direction {
            rows.reverse();
        }
        Ok(Page { rows, total: total.unsigned_abs() })
    }

    async fn edit_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        edit: &Edit,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CustomCsr>, StoreError> {
        let mut tx = self.begin_write().await?;
        let key = values![id.to_string(), scope.to_string()];
        let rows = self.fetch(&mut tx, sql::FIND_CUSTOM_CSR, key.clone()).await?;
        let Some(before) = rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()? else { return Ok(None) };
        if *edit == Edit::default() {
            return Ok(Some(before));
        }
        let (name, description) = (edit.name.clone(), edit.description.clone());
        let searched = search_text(name.clone().flatten().as_deref(), &before.request);
        let mut values = key.clone();
        values.extend(values![i64::from(name.is_some()), name.flatten(), searched]);
        values.extend(values![i64::from(description.is_some()), description.flatten(), now.micros()]);
        self.execute(&mut tx, sql::EDIT_CUSTOM_CSR, values).await?;
        let rows = self.fetch(&mut tx, sql::FIND_CUSTOM_CSR, key).await?;
        let Some(after) = rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()? else { return Ok(None) };
        self.record(&mut tx, &NewEntry::custom_csr(Action::Edit, id, scope), actor, now).await?;
        self.commit(tx).await?;
        Ok(Some(after))
    }

    async fn delete_custom_csr(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<Deletion, StoreError> {
        let mut tx = self.begin_write().await?;
        let locked = self.fetch(&mut tx, sql::LOCK_CUSTOM_CSR, values![id.to_string(), scope.to_string()]).await?;
        let Some(row) = locked.first() else { return Ok(Deletion::NotFound) };
        let job_id = Reader::<DB>(row).text("job_id")?;
        if !self.delete_expired_certificates(&mut tx, id, actor, now).await? {
            return Ok(Deletion::InUse);
        }
        self.execute(&mut tx, sql::DELETE_CUSTOM_CSR, values![id.to_string()]).await?;
        self.execute(&mut tx, DB::CANCEL_JOB, values![job_id]).await?;
        self.execute(&mut tx, sql::GIVE_BACK_QUOTA, values![scope.to_string()]).await?;
        self.record(&mut tx, &NewEntry::custom_csr(Action::Delete, id, scope), actor, now).await?;
        self.commit(tx).await?;
        self.signals.send(Signal::Changed(id));
        Ok(Deletion::Deleted)
    }

    async fn start_generation(&self, id: CustomCsrId) -> Result<Option<Generation>, StoreError> {
        self.start(id).await
    }

    async fn start_others(&self, first: &Generation, limit: u32) -> Result<Vec<Generation>, StoreError> {
        if first.starts == 1 {
            return self.take_others(first, limit).await;
        }
        self.give_others_back(first).await.map(|()| Vec::new())
    }

    async fn complete_generation(&self, id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Result<bool, StoreError> {
        self.write_grouped(Write::Complete(id, made.clone(), now)).await.and_then(Written::completed)
    }

    async fn retry_generation(&self, id: CustomCsrId, attempts: u32, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        let job = NewJob::new(GenerateCsrJob::new(id)).after(delay);
        let values = values![id.to_string(), i64::from(attempts), job.id.clone(), now.micros()];
        if self.execute(&mut tx, sql::RETRY_GENERATION, values).await? == 0 {
            return Ok(false);
        }
        self.push(&mut tx, job).await?;
        self.commit(tx).await?;
        Ok(true)
    }

    async fn fail_generation(&self, id: CustomCsrId, reason: &str, now: Timestamp) -> Result<bool, StoreError> {
        let failed = self.write(sql::FAIL_GENERATION, values![id.to_string(), reason, now.micros()]).await? > 0;
        self.signals.send(Signal::Changed(id));
        Ok(failed)
    }

    async fn forget_start(&self, id: CustomCsrId) -> Result<(), StoreError> {
        self.write(sql::FORGET_START, values![id.to_string()]).await.map(drop)
    }

    async fn defer_generation(&self, id: CustomCsrId, delay: Duration) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        let job = NewJob::new(GenerateCsrJob::new(id));
        let job = if delay.is_zero() { job } else { job.after(delay) };
        if self.execute(&mut tx, sql::DEFER_GENERATION, values![id.to_string(), job.id.clone()]).await? == 0 {
            return Ok(false);
        }
        self.push(&mut tx, job).await?;
        self.commit(tx).await?;
        if delay.is_zero() {
            self.signals.send(Signal::Enqueued);
        }
        Ok(true)
    }

    async fn sweep(&self) -> Result<Sweep, StoreError> {
        let mut requeued = 0;
        loop {
            let mut tx = self.begin_write().await?;
            if !self.may_sweep(&mut tx).await? {
                return Ok(Sweep { requeued });
            }
            let rows = self.fetch(&mut tx, DB::JOBLESS, values![SWEEP_BATCH]).await?;
            for row in &rows {
                requeued += self.requeue(&mut tx, row).await?;
            }
            self.commit(tx).await?;
            if !rows.is_empty() {
                self.signals.send(Signal::Enqueued);
            }
            if rows.len() < usize::try_from(SWEEP_BATCH).unwrap_or_default() {
                return Ok(Sweep { requeued });
            }
        }
    }

    async fn purge(&self, ended_before: Timestamp, seen_before: Timestamp, now: Timestamp) -> Result<Purge, StoreError> {
        let jobs = self.purge_batches(DB::PURGE_JOBS, ended_before.secs()).await?;
        let workers = self.purge_batches(DB::PURGE_WORKERS, seen_before.secs()).await?;
        let too_old = now.minus(IDEMPOTENCY_KEY_LIFE).micros();
        let idempotency_keys = self.purge_batches(sql::PURGE_IDEMPOTENCY_KEYS, too_old).await?;
        let pool_keys = self.purge_batches(sql::PURGE_POOL_KEYS, now.micros()).await?;
        Ok(Purge { jobs, workers, idempotency_keys, pool_keys })
    }

    async fn release_jobs(&self) -> Result<u64, StoreError> {
        match DB::RELEASE_JOBS {
            Some(release) => self.write(release, values![]).await,
            None => Ok(0),
        }
    }

    async fn list_master_keys(&self) -> Result<Vec<MasterKeyRow>, StoreError> {
        self.rows(sql::LIST_MASTER_KEYS, values![]).await?.iter().map(|row| Reader::<DB>(row).master_key()).collect()
    }

    async fn register_master_key(&self, id: &str, now: Timestamp) -> Result<Registration, StoreError> {
        let mut tx = self.begin_write().await?;
        if let Some(lock) = DB::MASTER_KEY_LOCK {
            self.fetch(&mut tx, lock, values![]).await?;
        }
        let known = self.fetch(&mut tx, sql::LIST_MASTER_KEYS, values![]).await?;
        let known = known.iter().map(|row| Reader::<DB>(row).master_key()).collect::<Result<Vec<_>, _>>()?;
        if known.is_empty() {
            self.execute(&mut tx, sql::REGISTER_MASTER_KEY, values![id, now.micros()]).await?;
            self.commit(tx).await?;
            return Ok(Registration::Current);
        }
        match known.into_iter().find(|key| key.current) {
            Some(current) if current.id == id => Ok(Registration::Current),
            Some(current) => Ok(Registration::Other(current.id)),
            None => Err(StoreError::Corrupt("none of the master keys is the current one".to_owned())),
        }
    }

    async fn list_sealed(&self, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<SealedRow>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.rows(sql::LIST_SEALED, values![after, i64::from(limit)]).await?.iter().map(|row| Reader::<DB>(row).sealed()).collect()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // As requests do, through the same queue: an ID and a scope that do not exist.
        let nobody = TenantId::parse("ready").ok_or_else(|| StoreError::Internal("no ID".to_owned()))?;
        self.find_custom_csr(&Scope::Zone(nobody), CustomCsrId::new(Timestamp::from_micros(0))).await.map(drop)
    }

    async fn vitals(&self, seen_within: Duration) -> Result<Vitals, StoreError> {
        let rows = self.rows(DB::VITALS, values![i64::try_from(seen_within.as_secs()).unwrap_or(i64::MAX)]).await?;
        let row = Reader::<DB>(rows.first().ok_or_else(|| StoreError::Internal("no row".to_owned()))?);
        let now = Timestamp::from_micros(row.int("now")?);
        let age = |oldest| now.micros().saturating_sub(oldest).max(0).unsigned_abs() / 1_000_000;
        Ok(Vitals {
            now,
            workers: row.int("workers")?.unsigned_abs(),
            pending: row.int("pending")?.unsigned_abs(),
            oldest_pending_secs: row.optional_int("oldest")?.map(age),
        })
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

/// A row of a list. One that cannot be read is left out and logged: it must not hide the others.
fn readable<DB: Dialect>(row: &Reader<'_, DB>, scope: &Scope) -> Option<CustomCsr> {
    let read = row.custom_csr();
    if let Err(error) = &read {
        let id = row.text("id").unwrap_or_else(|_| "without an ID".to_owned());
        tracing::error!(custom_csr_id = id, %scope, %error, "a custom CSR is left out of its list: its row cannot be read");
    }
    read.ok()
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
