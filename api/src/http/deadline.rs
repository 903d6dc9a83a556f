//! How long the database has for a request, all its steps together.

use std::{future::Future, time::Duration};

use shared::storage::StoreError;
use tokio::time::{Instant, timeout_at};

/// Clients get an answer within 5 s, whatever the database does.
const DATABASE_TIME: Duration = Duration::from_millis(4_500);

/// When the time ends that the database has for one request.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Default for Deadline {
    fn default() -> Self {
        Self(Instant::now() + DATABASE_TIME)
    }
}

impl Deadline {
    /// This one, or `other` if that is later.
    #[must_use]
    pub fn or_later(self, other: Instant) -> Self {
        Self(self.0.max(other))
    }

    /// A read, or the error that says that it can be repeated.
    ///
    /// # Errors
    ///
    /// The read's own, and [`StoreError::Unavailable`] if it is late.
    pub async fn read<T>(self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = |_| Err(StoreError::Unavailable("no answer in time".to_owned()));
        timeout_at(self.0, call).await.unwrap_or_else(late)
    }

    /// A write, or the error that says that it may have taken effect.
    ///
    /// # Errors
    ///
    /// The write's own, and [`StoreError::Ambiguous`] if it is late.
    pub async fn write<T>(self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = |_| Err(StoreError::Ambiguous("no answer in time".to_owned()));
        timeout_at(self.0, call).await.unwrap_or_else(late)
    }

    /// The result of work outside the database, or `None` if it is late.
    pub async fn work<T>(self, work: impl Future<Output = Option<T>>) -> Option<T> {
        timeout_at(self.0, work).await.ok().flatten()
    }
}
