//! Pools of connections, and how long anything waits for one.

use std::time::Duration;

use sqlx::{
    Connection, Pool,
    pool::{PoolConnectionMetadata, PoolOptions},
};

/// How long the API waits for a connection.
pub const API_WAIT: Duration = Duration::from_millis(1_500);
/// How long it waits for its turn to write: for the lock of its zone on PostgreSQL, for the one writing connection on SQLite. Short
/// enough to say within a request's time that nothing was written, long enough for the queue that a slow disk makes.
pub const TURN_WAIT: Duration = Duration::from_millis(2_500);
/// How long a start waits for its first connection.
pub const START_WAIT: Duration = Duration::from_secs(5);
/// How long the job queue waits for a connection: a worker has time, and an error ends it.
pub const QUEUE_WAIT: Duration = Duration::from_secs(30);
/// A connection that was used a moment ago needs no asking whether it lives: that takes as long as a statement.
pub const FRESH: Duration = Duration::from_secs(1);

/// How long a connection may take to say that it lives.
const PING_TIME: Duration = Duration::from_millis(400);
/// How long a connection that nobody uses is kept.
const IDLE_TIME: Duration = Duration::from_mins(1);

/// A pool whose connections are asked whether they live only where they were idle for a while.
pub fn pool<DB: sqlx::Database>(connections: u32, wait: Duration) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(wait)
        .idle_timeout(IDLE_TIME)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| Box::pin(is_usable::<DB>(connection, metadata)))
}

/// An error makes the pool take another connection.
async fn is_usable<DB: sqlx::Database>(connection: &mut DB::Connection, metadata: PoolConnectionMetadata) -> sqlx::Result<bool> {
    if metadata.idle_for > FRESH {
        // One that died without a word would use up the time of its caller, who may have another.
        tokio::time::timeout(PING_TIME, connection.ping()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
    }
    // On SQLite, a COMMIT that finds the disk full rolls back by itself. sqlx's own ROLLBACK then fails, and the connection counts as
    // within a transaction for ever: it is closed instead of used again.
    Ok(!connection.is_in_transaction())
}

/// How many connections a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Which pool.
    pub pool: &'static str,
    /// Connections that wait for work.
    pub idle: u64,
    /// Connections that work.
    pub busy: u64,
}

impl PoolUse {
    /// Of this pool, now, of whose connections so many wait for work beside it.
    pub(in crate::storage) fn of<DB: sqlx::Database>(name: &'static str, pool: &Pool<DB>, beside: usize) -> Self {
        // One that leaves between the two numbers is no reason to count below nothing.
        let (all, idle) = (u64::from(pool.size()), (pool.num_idle() + beside) as u64);
        Self { pool: name, idle, busy: all.saturating_sub(idle) }
    }
}
