//! Writing to SQLite beside the store: for the workers of the job queue, whose statements are apalis'.

use sqlx::{Sqlite, SqliteConnection};

use super::{Lent, connections::Connections};

/// The one connection on which a process writes. Whoever writes takes turns, instead of polling for the file's lock.
#[derive(Clone)]
pub struct Writer(Connections<Sqlite>);

impl Writer {
    /// The one of this file.
    pub(super) const fn of(connections: Connections<Sqlite>) -> Self {
        Self(connections)
    }

    /// The turn of whoever waits longest.
    ///
    /// # Errors
    ///
    /// An error of sqlx if it does not come within 30 s, or the database is closed.
    pub async fn turn(&self) -> sqlx::Result<WriterTurn> {
        self.0.lend().await.map(WriterTurn)
    }
}

/// A turn on the connection of a [`Writer`].
pub struct WriterTurn(Lent<Sqlite>);

impl WriterTurn {
    /// The connection. Unless [`Self::done`] says that all went well, it is closed at the end: it may be within a statement or a transaction.
    ///
    /// # Errors
    ///
    /// An error of sqlx if it is gone.
    pub fn connection(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        self.0.for_statement().map_err(|_| sqlx::Error::PoolClosed)
    }

    /// All went well, and no transaction is open.
    pub fn done(mut self) {
        self.0.answered();
    }
}
