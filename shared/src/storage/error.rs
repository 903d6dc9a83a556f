//! Why a storage operation did not happen.

/// Why a storage operation did not happen, as far as its caller must know.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or has no room; nothing is known to be wrong with the request.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The outcome of a commit is unknown, and so is whether the change happened.
    #[error("the outcome of the commit is unknown: {0}")]
    Ambiguous(String),
    /// A row contradicts the schema's promises.
    #[error("the database holds a row that cannot be read: {0}")]
    Corrupt(String),
    /// Anything else: a fault of ours.
    #[error("the database refused a statement: {0}")]
    Internal(String),
}
