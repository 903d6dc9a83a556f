//! Opening PostgreSQL: any number of processes, each with a pool, one listening and one notifying connection.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Postgres,
    pool::PoolOptions,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;

use super::{
    Access, Dialect, Migrate, OpenError, Opened, Queue,
    connections::Connections,
    migrate::{check_compatible, database_words, migrate, warn_of_newer},
    pool::{API_WAIT, QUEUE_WAIT, START_WAIT, TURN_WAIT, pool},
};

/// The advisory lock of migrations: `csrd` in ASCII.
const MIGRATION_LOCK: i64 = 0x6373_7264;
/// How long a start waits for another that migrates.
const LOCK_WAIT: Duration = Duration::from_mins(1);
/// After this long it says what it waits for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Connections of the job queue's worker.
const QUEUE_CONNECTIONS: u32 = 3;
/// What every connection is set to, whatever the server, the database or the role says: the code relies on row locks, and on strings without
/// escapes; and a machine that was lost keeps no row locked for longer than seconds.
///
/// PostgreSQL keeps the plan of a statement. A plan that was made while a table was almost empty would read the whole table, and would still
/// do so when it has grown: so indexes are preferred, whatever the statistics say. It would plan a statement with `LIMIT $1` anew each time, since
/// the plan for a known number looks cheaper: so it is to keep one plan for all values. JIT would compile plans that look expensive, as plans
/// without an index do.
const SESSION: &str = "SET default_transaction_isolation = 'read committed'; SET standard_conforming_strings = on; \
    SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan; \
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '20s'; \
    SET idle_in_transaction_session_timeout = '5s'";
/// Just before the store itself gives up, so that the connection can be used again.
const STORE_LIMITS: &str = "SET statement_timeout = '2400ms'; SET lock_timeout = '2s'";
/// A worker has more time.
const QUEUE_LIMITS: &str = "SET statement_timeout = '20s'; SET lock_timeout = '10s'; SET synchronous_commit = off";
/// An index takes as long as it takes. Whoever waits for a table's lock keeps all others off that table meanwhile.
const MIGRATION_LIMITS: &str = "SET statement_timeout = 0; SET lock_timeout = '10s'";

/// Opens the database on this server.
pub async fn open(options: &PgConnectOptions, access: Access) -> Result<Opened<Postgres>, OpenError> {
    let migrated = prepare(options, access.migrate).await?;
    let connections = Connections::of(limited(pool(access.pool_size, API_WAIT), STORE_LIMITS).connect_lazy_with(options.clone()));
    let queue = Queue::Postgres(pool_without_durable_commits(QUEUE_CONNECTIONS, options));
    Ok(Opened { read: connections.clone(), write: connections, queue, statement_time: TURN_WAIT, migrated })
}

/// Connections that are set to these limits.
fn limited(pool: PoolOptions<Postgres>, limits: &'static str) -> PoolOptions<Postgres> {
    pool.after_connect(move |connection: &mut PgConnection, _| Box::pin(set(connection, limits)))
}

/// By a statement, not by the startup packet: some poolers refuse that.
async fn set(connection: &mut PgConnection, limits: &'static str) -> sqlx::Result<()> {
    connection.execute(SESSION).await?;
    connection.execute(limits).await.map(drop)
}

/// For what a server that crashes may forget of its last moments: signals, and which worker has which job. A job that is waiting again
/// wakes a worker twice, and the row decides. No commit of these waits for the disk.
pub fn pool_without_durable_commits(connections: u32, options: &PgConnectOptions) -> PgPool {
    limited(pool(connections, QUEUE_WAIT), QUEUE_LIMITS).connect_lazy_with(options.clone())
}

/// One connection likewise.
pub async fn connect_without_durable_commits(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let mut connection = PgConnection::connect_with(options).await?;
    set(&mut connection, QUEUE_LIMITS).await?;
    Ok(connection)
}

/// Under one lock, so that of several processes that start at once one migrates and the others find it done. How many migrations ran.
async fn prepare(options: &PgConnectOptions, when: Migrate) -> Result<usize, OpenError> {
    // Not of the pool: that would only say that it timed out, and may have no more than one connection.
    let connected = tokio::time::timeout(START_WAIT, async {
        let mut connection = PgConnection::connect_with(options).await?;
        set(&mut connection, MIGRATION_LIMITS).await?;
        Ok(connection)
    });
    let mut connection = match connected.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(server_error(options, &error)),
        Err(_) => return Err(OpenError::Unreachable { server: server(options), reason: "no answer in time".to_owned() }),
    };
    lock(&mut connection, LOCK_WAIT).await.unwrap_or_else(|error| Err(server_error(options, &error)))?;
    let prepared = prepare_locked(options, &mut connection, when).await;
    // The lock goes with its connection, however that ends.
    let _ = tokio::time::timeout(START_WAIT, connection.close()).await;
    prepared
}

/// Asks again and again: a session that waits within a statement would keep `CREATE INDEX CONCURRENTLY` waiting for it.
async fn lock(connection: &mut PgConnection, wait: Duration) -> sqlx::Result<Result<(), OpenError>> {
    let (began, mut said) = (Instant::now(), false);
    loop {
        let asked = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(MIGRATION_LOCK).fetch_one(&mut *connection);
        if tokio::time::timeout(START_WAIT, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))? {
            return Ok(Ok(()));
        }
        if began.elapsed() > wait {
            return Ok(Err(OpenError::Locked(wait, MIGRATION_LOCK)));
        }
        if began.elapsed() > LOCK_PATIENCE && !said {
            said = true;
            tracing::info!("waiting for another process that migrates the database");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn prepare_locked(options: &PgConnectOptions, connection: &mut PgConnection, when: Migrate) -> Result<usize, OpenError> {
    let failed = |error: sqlx::Error| server_error(options, &error);
    if exists("compatibility", connection).await.map_err(failed)? {
        let minimum = sqlx::query_scalar("SELECT MAX(minimum) FROM compatibility").fetch_one(&mut *connection).await.map_err(failed)?;
        check_compatible::<Postgres>(minimum)?;
    }
    if when != Migrate::Always {
        match lacking(connection).await.map_err(failed)? {
            None => return Ok(0),
            Some(version) if is_used(connection).await.map_err(failed)? => return Err(OpenError::NotMigrated(version)),
            Some(_) if when == Migrate::Never => return Err(OpenError::Empty),
            Some(_) => {}
        }
    }
    drop_half_made_indexes(connection).await.map_err(failed)?;
    let one = PgPoolOptions::new().max_connections(1).acquire_timeout(START_WAIT);
    let pool = limited(one, MIGRATION_LIMITS).connect_lazy_with(options.clone());
    let migrated = migrate(&pool).await;
    let _ = tokio::time::timeout(START_WAIT, pool.close()).await;
    migrated
}

async fn exists(table: &str, connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(table).fetch_one(connection).await
}

/// Whether anything was ever stored. A first start that was killed while it migrated leaves a database where nothing was: the next start
/// goes on with it.
async fn is_used(connection: &mut PgConnection) -> sqlx::Result<bool> {
    for (table, any) in [("scopes", "SELECT EXISTS (SELECT 1 FROM scopes)"), ("master_keys", "SELECT EXISTS (SELECT 1 FROM master_keys)")] {
        if exists(table, connection).await? && sqlx::query_scalar(any).fetch_one(&mut *connection).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `CREATE INDEX CONCURRENTLY` that was interrupted leaves an index that nothing reads and every write keeps up.
async fn drop_half_made_indexes(connection: &mut PgConnection) -> sqlx::Result<()> {
    let half_made = "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid \
        WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace";
    let names: Vec<String> = sqlx::query_scalar(half_made).fetch_all(&mut *connection).await?;
    for name in names {
        tracing::warn!(index = name, "an index was made by half when its migration was interrupted: it is dropped and made again");
        // regclass quotes the name where it needs that.
        connection.execute(AssertSqlSafe(format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"))).await?;
    }
    Ok(())
}

/// The first migration that is known and did not run.
async fn lacking(connection: &mut PgConnection) -> sqlx::Result<Option<i64>> {
    let all = [
        (Postgres::migrations(), "_sqlx_migrations", "SELECT version FROM _sqlx_migrations WHERE success"),
        (Postgres::queue_migrations(), "apalis._sqlx_migrations", "SELECT version FROM apalis._sqlx_migrations WHERE success"),
    ];
    for (migrator, table, applied) in all {
        let applied: Vec<i64> =
            if exists(table, connection).await? { sqlx::query_scalar(applied).fetch_all(&mut *connection).await? } else { Vec::new() };
        if let Some(version) = warn_of_newer(&migrator, &applied).into_iter().find(|version| !applied.contains(version)) {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

fn server(options: &PgConnectOptions) -> String {
    format!("{}:{}", options.get_host(), options.get_port())
}

fn server_error(options: &PgConnectOptions, error: &sqlx::Error) -> OpenError {
    match error {
        sqlx::Error::Database(_) => OpenError::Refused(database_words(error)),
        other => OpenError::Unreachable { server: server(options), reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{storage::Location, testing::TestDatabase};

    #[tokio::test]
    async fn a_lock_of_migrations_that_nobody_gives_back_is_given_up_and_the_error_says_what_to_end() {
        let test = TestDatabase::new().await;
        let Location::Postgres(options) = &test.location else { return };
        let mut holder = PgConnection::connect_with(options).await.unwrap();
        sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATION_LOCK).execute(&mut holder).await.unwrap();
        let mut waiting = PgConnection::connect_with(options).await.unwrap();
        let error = lock(&mut waiting, Duration::from_millis(300)).await.unwrap().unwrap_err();
        assert!(matches!(error, OpenError::Locked(_, MIGRATION_LOCK)), "{error}");
        assert!(error.to_string().contains(&format!("end the session that holds the advisory lock {MIGRATION_LOCK}")), "{error}");

        // It is given back while somebody waits.
        let (locked, closed) = tokio::join!(lock(&mut waiting, LOCK_WAIT), holder.close());
        closed.unwrap();
        locked.unwrap().unwrap();
    }
}
