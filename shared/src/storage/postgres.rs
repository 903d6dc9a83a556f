//! Opening PostgreSQL: any number of processes, each with a pool, one listening and one notifying connection.

use std::{collections::HashSet, sync::Arc};

use sqlx::{
    Connection, Executor, PgConnection, PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Dialect, SqlStore,
    connect::{API_WAIT, Access, Database, Held, Migrate, OpenError, QUEUE_WAIT, Queue, START_WAIT, TURN_WAIT, migrate, pool},
    notify,
    signals::Signals,
};

/// The advisory lock of migrations: `csrd` in ASCII.
const MIGRATION_LOCK: i64 = 0x6373_7264;
/// Connections beside the pool: one listens, one notifies.
const SIGNAL_CONNECTIONS: u32 = 2;
/// Connections of the job queue's worker.
const QUEUE_CONNECTIONS: u32 = 3;

/// Opens the database on this server.
pub(super) async fn open(options: &PgConnectOptions, access: Access) -> Result<Database, OpenError> {
    let options = options.clone().application_name("csrd");
    prepare(&options, access.migrate).await?;
    let pool = pool(access.pool_size, API_WAIT).connect_lazy_with(options.clone());
    let signal_pool = forgetful(SIGNAL_CONNECTIONS, &options);
    let queue = forgetful(QUEUE_CONNECTIONS, &options);
    let (others, outbox) = mpsc::unbounded_channel();
    let signals = Arc::new(Signals::new(Some(others)));
    let mut tasks = JoinSet::new();
    tasks.spawn(notify::send(signal_pool.clone(), outbox));
    tasks.spawn(notify::receive(signal_pool, Arc::clone(&signals)));
    let store = SqlStore::<Postgres>::new(pool.clone(), pool, signals, TURN_WAIT).grouping(&mut tasks);
    Ok(Database { store: Arc::new(store), queue: Queue::Postgres(queue), _held: Held { tasks, ..Held::default() } })
}

/// For what a server that crashes may forget of its last moments: signals, and which worker has which job. A job that is waiting again
/// wakes a worker twice, and the row decides. No commit of these waits for the disk.
fn forgetful(connections: u32, options: &PgConnectOptions) -> PgPool {
    pool(connections, QUEUE_WAIT)
        .after_connect(|connection: &mut PgConnection, _| {
            Box::pin(async move { connection.execute("SET synchronous_commit = off").await.map(drop) })
        })
        .connect_lazy_with(options.clone())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn server_error(error: sqlx::Error) -> OpenError {
    OpenError::Server(error.to_string())
}

/// Under one lock, so that of several processes that start at once one migrates and the others find it done.
async fn prepare(options: &PgConnectOptions, when: Migrate) -> Result<(), OpenError> {
    // Not of the pool: that would only say that it timed out, and may have no more than one connection.
    let connected = tokio::time::timeout(START_WAIT, PgConnection::connect_with(options)).await;
    let mut connection = connected.map_err(|_| OpenError::Server("no answer in time".to_owned()))?.map_err(server_error)?;
    sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATION_LOCK).execute(&mut connection).await.map_err(server_error)?;
    let prepared = prepare_locked(options, &mut connection, when).await;
    // The lock goes with its connection, however that ends.
    let _ = connection.close().await;
    prepared
}

async fn prepare_locked(options: &PgConnectOptions, connection: &mut PgConnection, when: Migrate) -> Result<(), OpenError> {
    let ours: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text").fetch_one(&mut *connection).await.map_err(server_error)?;
    if when == Migrate::Always || ours.is_none() {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(START_WAIT).connect_lazy_with(options.clone());
        let migrated = migrate(&pool).await;
        pool.close().await;
        return migrated;
    }
    let applied = "SELECT version FROM _sqlx_migrations WHERE success";
    check(&Postgres::migrations(), applied, connection).await?;
    let applied = "SELECT version FROM apalis._sqlx_migrations WHERE success";
    check(&Postgres::queue_migrations(), applied, connection).await
}

/// Every migration that is known must have run, and no other.
async fn check(migrator: &sqlx::migrate::Migrator, applied: &'static str, connection: &mut PgConnection) -> Result<(), OpenError> {
    let applied: HashSet<i64> = sqlx::query_scalar(applied).fetch_all(connection).await.map_err(server_error)?.into_iter().collect();
    let known: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        return Err(OpenError::Newer(*newer));
    }
    known.into_iter().find(|version| !applied.contains(version)).map_or(Ok(()), |lacking| Err(OpenError::NotMigrated(lacking)))
}
