//! Connections that were read on just now, kept for the next reads: a pool asks each one that comes back whether it lives, and that
//! takes as long as the read did.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use sqlx::{Database, Pool, pool::PoolConnection};
use tokio::time::Instant;

use super::{lent::give_back, pool::FRESH};

/// Connections of a pool for reads, half of them at most: the others are for who asks the pool itself.
pub(super) struct Kept<DB: Database> {
    pool: Pool<DB>,
    /// Those that nobody uses, and since when: the oldest first.
    free: Mutex<VecDeque<(PoolConnection<DB>, Instant)>>,
    most: usize,
}

impl<DB: Database> Kept<DB> {
    pub fn new(pool: Pool<DB>) -> Self {
        let most = pool.options().get_max_connections() / 2;
        Self { pool, free: Mutex::default(), most: most as usize }
    }

    /// A connection that was used a moment ago, or one of the pool.
    pub async fn acquire(&self) -> sqlx::Result<PoolConnection<DB>> {
        self.return_stale();
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
        match kept {
            Some((connection, _)) => Ok(connection),
            None => self.pool.acquire().await,
        }
    }

    /// Gives back to the pool what no read wanted for a while: others ask the pool for it.
    pub fn return_stale(&self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while free.front().is_some_and(|(_, since)| since.elapsed() >= FRESH) {
            if let Some((connection, _)) = free.pop_front() {
                tokio::spawn(give_back(connection));
            }
        }
    }

    /// Keeps a connection on which everything went well.
    pub fn keep(&self, connection: PoolConnection<DB>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.most && !self.pool.is_closed() {
            free.push_back((connection, Instant::now()));
        } else {
            tokio::spawn(give_back(connection));
        }
    }

    /// Closes the pool, which waits for all of its connections.
    pub async fn close(&self) {
        let closed = self.pool.close();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
        closed.await;
    }
}
