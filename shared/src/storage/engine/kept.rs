//! Connections that are kept beside their pool.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::pool::PoolConnection;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::Dialect;

/// How long a connection is kept out of its pool, which renews old ones.
const OUT_OF_POOL: Duration = Duration::from_mins(1);
/// How long giving a connection back may take.
pub const RETURN_TIME: Duration = Duration::from_secs(2);

/// Gives a connection back to its pool.
pub async fn give_back<DB: Dialect>(mut connection: PoolConnection<DB>) {
    let _ = tokio::time::timeout(RETURN_TIME, connection.return_to_pool()).await;
}

/// Connections that were used a moment ago.
pub struct Kept<DB: Dialect> {
    /// One for each connection that the pool may have.
    turns: Arc<Semaphore>,
    /// The one that was used last is the last.
    free: Mutex<Vec<Used<DB>>>,
}

struct Used<DB: Dialect> {
    connection: PoolConnection<DB>,
    /// When it left the pool.
    out_since: Instant,
    /// When it was used last.
    last: Instant,
}

impl<DB: Dialect> Kept<DB> {
    /// None yet, of a pool that may have so many.
    pub fn new(most: u32) -> Self {
        Self { turns: Arc::new(Semaphore::new(most as usize)), free: Mutex::default() }
    }

    /// The turn of whoever waits longest, with a connection if one is kept.
    pub async fn take(this: &Arc<Self>) -> sqlx::Result<(Option<PoolConnection<DB>>, Place<DB>)> {
        let turn = Arc::clone(&this.turns).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let (connection, out_since) = match this.free().pop() {
            Some(Used { connection, out_since, .. }) => (Some(connection), out_since),
            None => (None, Instant::now()),
        };
        Ok((connection, Place { kept: Arc::clone(this), out_since, _turn: turn }))
    }

    /// Takes those that nobody used for this time.
    pub fn unused_for(&self, time: Duration) -> Vec<PoolConnection<DB>> {
        self.free().extract_if(.., |used| used.last.elapsed() > time).map(|used| used.connection).collect()
    }

    /// Takes all of them, and keeps no more.
    pub fn end(&self) -> Vec<PoolConnection<DB>> {
        let mut free = self.free();
        self.turns.close();
        mem::take(&mut *free).into_iter().map(|used| used.connection).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.free().len()
    }

    fn free(&self) -> MutexGuard<'_, Vec<Used<DB>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that goes back to its pool needs a runtime.
impl<DB: Dialect> Drop for Kept<DB> {
    fn drop(&mut self) {
        if Handle::try_current().is_err() {
            for connection in self.end() {
                drop(connection.detach());
            }
        }
    }
}

/// Where a connection is kept after its use, and the turn of whoever uses it.
pub struct Place<DB: Dialect> {
    kept: Arc<Kept<DB>>,
    out_since: Instant,
    _turn: OwnedSemaphorePermit,
}

impl<DB: Dialect> Place<DB> {
    /// Keeps a connection on which nothing goes on, or returns it if it has to go back to its pool.
    pub fn keep(self, connection: PoolConnection<DB>) -> Option<PoolConnection<DB>> {
        let mut free = self.kept.free();
        if self.kept.turns.is_closed() || self.out_since.elapsed() > OUT_OF_POOL {
            return Some(connection);
        }
        free.push(Used { connection, out_since: self.out_since, last: Instant::now() });
        None
    }
}
