//! Connections to PostgreSQL: what each is set to.

use sqlx::{Executor, PgConnection, PgPool, Postgres, pool::PoolOptions, postgres::PgConnectOptions};

use super::pool::{QUEUE_WAIT, pool};

/// What every connection is set to, whatever the server, the database or the role says: the code relies on row locks, and on strings without
/// escapes; and a machine that was lost keeps no row locked for longer than seconds.
const SESSION: &str = "SET default_transaction_isolation = 'read committed'; SET standard_conforming_strings = on; \
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '20s'; \
    SET idle_in_transaction_session_timeout = '5s'";
/// Just before the store itself gives up, so that the connection can be used again.
pub(super) const STORE_LIMITS: &str = "SET statement_timeout = '2400ms'; SET lock_timeout = '2s'";
/// A worker has more time.
const QUEUE_LIMITS: &str = "SET statement_timeout = '20s'; SET lock_timeout = '10s'; SET synchronous_commit = off";
/// An index takes as long as it takes. Whoever waits for a table's lock keeps all others off that table meanwhile.
pub(super) const MIGRATION_LIMITS: &str = "SET statement_timeout = 0; SET lock_timeout = '10s'";

/// Connections that are set to these limits.
pub(super) fn limited(pool: PoolOptions<Postgres>, limits: &'static str) -> PoolOptions<Postgres> {
    pool.after_connect(move |connection: &mut PgConnection, _| Box::pin(set(connection, limits)))
}

/// By a statement, not by the startup packet: some poolers refuse that.
pub(super) async fn set(connection: &mut PgConnection, limits: &'static str) -> sqlx::Result<()> {
    connection.execute(SESSION).await?;
    connection.execute(limits).await.map(drop)
}

/// Connections whose last commits a crash of the server may lose: for signals, and for which worker has which job. No commit of theirs waits
/// for the disk. A job that waits again wakes a worker twice, and the row decides.
pub(super) fn pool_without_durable_commits(connections: u32, options: &PgConnectOptions) -> PgPool {
    limited(pool(connections, QUEUE_WAIT), QUEUE_LIMITS).connect_lazy_with(options.clone())
}
