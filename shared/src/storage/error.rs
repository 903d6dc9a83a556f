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

impl StoreError {
    /// The word for each kind of error, in metrics.
    pub const KINDS: [&'static str; 4] = ["unavailable", "ambiguous", "corrupt", "internal"];

    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        let [unavailable, ambiguous, corrupt, internal] = Self::KINDS;
        match self {
            Self::Unavailable(_) => unavailable,
            Self::Ambiguous(_) => ambiguous,
            Self::Corrupt(_) => corrupt,
            Self::Internal(_) => internal,
        }
    }
}
