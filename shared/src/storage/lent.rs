//! A connection in use: whoever is given up half-way leaves none behind that is within a statement or a transaction, or waits for ever.
//!
//! sqlx gives a connection back by asking it whether it lives, without a time limit: one whose server is silent would keep its place in
//! the pool for as long as TCP hopes. So a connection whose last statement got no answer is closed here, and everything that is done to
//! give one back has a time.

use std::{sync::Arc, time::Duration};

use sqlx::pool::PoolConnection;

use super::{Dialect, StoreError, kept::Kept};

/// How long giving a connection back may take.
const RETURN_TIME: Duration = Duration::from_secs(2);

/// What is known of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing goes on.
    Idle,
    /// A transaction was begun.
    InTransaction,
    /// A statement was begun and got no answer.
    Unknown,
}

/// A connection out of a pool.
pub(super) struct Lent<DB: Dialect> {
    connection: Option<PoolConnection<DB>>,
    state: State,
    /// What the state is once the statement under way is answered.
    then: State,
    /// Where it goes without a question once all went well.
    keeper: Option<Arc<Kept<DB>>>,
}

impl<DB: Dialect> Lent<DB> {
    pub const fn new(connection: PoolConnection<DB>, keeper: Option<Arc<Kept<DB>>>) -> Self {
        Self { connection: Some(connection), state: State::Idle, then: State::Idle, keeper }
    }

    /// For a statement. Until [`Self::answered`] says that it ended, the connection counts as lost.
    pub fn for_statement(&mut self) -> Result<&mut DB::Connection, StoreError> {
        self.then = if self.state == State::Unknown { self.then } else { self.state };
        self.state = State::Unknown;
        self.connection.as_deref_mut().ok_or_else(|| StoreError::Unavailable("the connection is gone".to_owned()))
    }

    /// The statement ended, well or with the database's own refusal.
    pub const fn answered(&mut self) {
        self.state = self.then;
    }

    /// A transaction begins with the next answer, or ends with it.
    pub const fn in_transaction(&mut self, is: bool) {
        self.state = if is { State::InTransaction } else { State::Idle };
    }

    /// Whether the database answered all that it was asked.
    pub fn is_sound(&self) -> bool {
        self.state != State::Unknown
    }
}

impl<DB: Dialect> Drop for Lent<DB> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (state, keeper) = (self.state, self.keeper.take());
        match (state, keeper, tokio::runtime::Handle::try_current()) {
            (State::Idle, Some(keeper), Ok(_)) => keeper.keep(connection),
            (State::Unknown, ..) | (.., Err(_)) => drop(connection.detach()),
            (State::Idle | State::InTransaction, _, Ok(runtime)) => {
                runtime.spawn(tokio::time::timeout(RETURN_TIME, async move {
                    if state == State::InTransaction && DB::simple(&mut connection, "ROLLBACK").await.is_err() {
                        // The database may have ended the transaction by itself, as SQLite does on a full disk.
                        drop(connection.detach());
                        return;
                    }
                    give_back(connection).await;
                }));
            }
        }
    }
}

/// Gives a connection back to its pool, within a time.
pub(super) async fn give_back<DB: sqlx::Database>(mut connection: PoolConnection<DB>) {
    let _ = tokio::time::timeout(RETURN_TIME, connection.return_to_pool()).await;
}
