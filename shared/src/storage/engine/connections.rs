//! The connections of a pool, of which those that were used a moment ago are kept beside it.
//!
//! sqlx asks each connection that comes back to its pool whether it lives, which takes as long as a statement.

use std::{future::Future, sync::Arc};

use sqlx::Pool;

use super::{
    Dialect, Lent,
    kept::{Kept, give_back},
    pool::{FRESH, PoolUse},
};

/// Where to get connections to a database. Clones are the same connections.
pub struct Connections<DB: Dialect> {
    pool: Pool<DB>,
    kept: Arc<Kept<DB>>,
}

impl<DB: Dialect> Clone for Connections<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), kept: Arc::clone(&self.kept) }
    }
}

impl<DB: Dialect> Connections<DB> {
    /// Those of a pool that nobody else has. [`Self::keep_fresh`] is to run for as long as they are used.
    pub fn of(pool: Pool<DB>) -> Self {
        let kept = Kept::new(pool.options().get_max_connections());
        Self { pool, kept: Arc::new(kept) }
    }

    /// A connection, for whoever waits longest.
    pub async fn lend(&self) -> sqlx::Result<Lent<DB>> {
        let taken = tokio::time::timeout(self.pool.options().get_acquire_timeout(), Kept::take(&self.kept));
        let (connection, place) = taken.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        let connection = match connection {
            Some(connection) => connection,
            None => self.pool.acquire().await?,
        };
        Ok(Lent::new(connection, place))
    }

    /// Gives connections back to the pool that nobody used for a moment: from then on it looks after them.
    pub fn keep_fresh(&self) -> impl Future<Output = ()> + Send + use<DB> {
        let kept = Arc::clone(&self.kept);
        async move {
            loop {
                tokio::time::sleep(FRESH).await;
                for connection in kept.unused_for(FRESH) {
                    give_back(connection).await;
                }
            }
        }
    }

    /// How many of them may be used at once.
    pub fn most(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// How many there are, under this name.
    pub fn in_use(&self, name: &'static str) -> PoolUse {
        PoolUse::of(name, &self.pool, self.kept.count())
    }

    /// Closes them, once those that are lent are back.
    pub async fn close(&self) {
        for connection in self.kept.end() {
            give_back(connection).await;
        }
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::{Sqlite, sqlite::SqlitePoolOptions};

    use super::*;

    fn connections(most: u32) -> Connections<Sqlite> {
        let options = SqlitePoolOptions::new().max_connections(most).acquire_timeout(Duration::from_millis(100));
        Connections::of(options.connect_lazy("sqlite::memory:").unwrap())
    }

    #[tokio::test]
    async fn a_connection_is_kept_after_its_use_and_used_again_until_nobody_does() {
        let connections = connections(2);
        for _ in 0..3 {
            let lent = connections.lend().await.unwrap();
            assert_eq!(connections.in_use("read"), PoolUse { pool: "read", idle: 0, busy: 1 });
            drop(lent);
            assert_eq!(connections.in_use("read"), PoolUse { pool: "read", idle: 1, busy: 0 });
            assert_eq!((connections.pool.size(), connections.pool.num_idle()), (1, 0), "it did not go back to its pool");
        }
        tokio::select! {
            () = connections.keep_fresh() => {}
            () = async { while connections.pool.num_idle() == 0 { tokio::time::sleep(Duration::from_millis(10)).await } } => {}
        }
        assert_eq!(connections.in_use("read"), PoolUse { pool: "read", idle: 1, busy: 0 });
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_connection_that_is_given_back_or_is_told_in_time_that_there_is_none() {
        let connections = connections(1);
        let lent = connections.lend().await.unwrap();
        assert!(matches!(connections.lend().await.err(), Some(sqlx::Error::PoolTimedOut)));
        let (next, ()) = tokio::join!(connections.lend(), async { drop(lent) });
        drop(next.unwrap());
        assert_eq!(connections.pool.size(), 1);
    }

    #[tokio::test]
    async fn closing_waits_for_what_is_lent_and_lends_nothing_more() {
        let connections = connections(2);
        let (lent, kept) = (connections.lend().await.unwrap(), connections.lend().await.unwrap());
        drop(kept);
        let closed = connections.close();
        tokio::pin!(closed);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut closed).await.is_err());
        assert!(matches!(connections.lend().await.err(), Some(sqlx::Error::PoolClosed)));
        drop(lent);
        closed.await;
        assert_eq!(connections.pool.size(), 0);
    }
}
