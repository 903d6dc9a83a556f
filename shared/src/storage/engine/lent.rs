//! A connection in use: whoever is given up half-way leaves none behind that is within a statement or a transaction, or waits for ever.
//!
//! sqlx gives a connection back by asking it whether it lives, without a time limit: one whose server is silent would keep its place in
//! the pool for as long as TCP hopes. So a connection whose last statement got no answer is closed here, and everything that is done to
//! give one back has a time.

use sqlx::pool::PoolConnection;

use super::{
    Dialect, Failure,
    kept::{Place, RETURN_TIME, give_back},
    statement::{Statement, statements},
};
use crate::storage::StoreError;

statements! {
    ROLLBACK = "ROLLBACK";
}

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
pub struct Lent<DB: Dialect> {
    connection: Option<PoolConnection<DB>>,
    place: Option<Place<DB>>,
    state: State,
    /// What the state is once the statement under way is answered.
    then: State,
    /// What begins a transaction with the first statement.
    begin: Option<Statement>,
}

impl<DB: Dialect> Lent<DB> {
    /// A connection, and where to keep it afterwards.
    pub const fn new(connection: PoolConnection<DB>, place: Place<DB>) -> Self {
        Self { connection: Some(connection), place: Some(place), state: State::Idle, then: State::Idle, begin: None }
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

    /// A transaction begins with the first statement, by this one before it.
    pub const fn begin_by(&mut self, begin: Statement) {
        self.begin = Some(begin);
    }

    /// What is to be run before the next statement, in the same trip or before. From then on there is a transaction to be rolled back.
    pub const fn begins(&mut self) -> Option<Statement> {
        let begin = self.begin.take();
        if begin.is_some() {
            self.state = State::InTransaction;
        }
        begin
    }

    /// The transaction was committed.
    pub const fn ended(&mut self) {
        self.state = State::Idle;
    }

    /// Why a batch on this connection was not done.
    pub fn failure(&self, error: StoreError) -> Failure {
        Failure { error, is_answer: self.state != State::Unknown }
    }
}

impl<DB: Dialect> Drop for Lent<DB> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (place, state) = (self.place.take(), self.state);
        match (state, tokio::runtime::Handle::try_current()) {
            (State::Unknown, _) | (_, Err(_)) => drop(connection.detach()),
            (State::Idle, Ok(runtime)) => {
                if let Some(connection) = kept_or_left(connection, place) {
                    runtime.spawn(give_back(connection));
                }
            }
            (State::InTransaction, Ok(runtime)) => {
                runtime.spawn(async move {
                    let rolled_back = tokio::time::timeout(RETURN_TIME, DB::simple(&mut connection, ROLLBACK)).await;
                    if !matches!(rolled_back, Ok(Ok(()))) {
                        // The database may have ended the transaction by itself, as SQLite does on a full disk.
                        drop(connection.detach());
                    } else if let Some(connection) = kept_or_left(connection, place) {
                        give_back(connection).await;
                    }
                });
            }
        }
    }
}

/// Keeps a connection in its place, if it has one there.
fn kept_or_left<DB: Dialect>(connection: PoolConnection<DB>, place: Option<Place<DB>>) -> Option<PoolConnection<DB>> {
    match place {
        Some(place) => place.keep(connection),
        None => Some(connection),
    }
}
