//! Connections that were read on just now, kept for the next reads: a pool asks each one that comes back whether it lives, and that
//! takes as long as the read did.

use std::sync::{Mutex, PoisonError};

use sqlx::{Database, Pool, pool::PoolConnection};
use tokio::time::Instant;

use super::connect::FRESH;

/// Connections of a pool for reads, half of them at most: the others are for who asks the pool itself.
pub(super) struct Kept<DB: Database> {
    pool: Pool<DB>,
    /// Those that nobody uses, and since when.
    free: Mutex<Vec<(PoolConnection<DB>, Instant)>>,
    most: usize,
}

impl<DB: Database> Kept<DB> {
    pub fn new(pool: Pool<DB>) -> Self {
        let most = pool.options().get_max_connections() / 2;
        Self { pool, free: Mutex::default(), most: most as usize }
    }

    /// A connection. Whoever drops it gives it back to the pool, whatever happened to it.
    pub async fn acquire(&self) -> sqlx::Result<PoolConnection<DB>> {
        match self.fresh() {
            Some(connection) => Ok(connection),
            None => self.pool.acquire().await,
        }
    }

    /// One that was used a moment ago; the pool gets the others.
    fn fresh(&self) -> Option<PoolConnection<DB>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (connection, since) = free.pop()?;
        if since.elapsed() < FRESH {
            return Some(connection);
        }
        free.clear();
        None
    }

    /// Keeps a connection on which everything went well.
    pub fn keep(&self, connection: PoolConnection<DB>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.most && !self.pool.is_closed() {
            free.push((connection, Instant::now()));
        }
    }

    /// Closes the pool, which waits for all of its connections.
    pub async fn close(&self) {
        let closed = self.pool.close();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
        closed.await;
    }
}
