//! What is wrong with a request, and what is remarkable about one that was accepted.

use crate::codes::{ErrorCode, WarningCode};

/// One fault of a request: what is wrong, where, and, for codes whose text has a `:reason`, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// What is wrong.
    pub code: ErrorCode,
    /// Which member of the body is meant, as a JSON pointer (RFC 6901); none for the request as a whole.
    pub pointer: Option<String>,
    /// What stands for `:reason` in the code's text.
    pub reason: Option<String>,
}

impl Issue {
    /// A fault of the request as a whole.
    #[must_use]
    pub const fn new(code: ErrorCode) -> Self {
        Self { code, pointer: None, reason: None }
    }

    /// A fault of one member of the body; `pointer` follows RFC 6901.
    #[must_use]
    pub fn at(code: ErrorCode, pointer: impl Into<String>) -> Self {
        Self { code, pointer: Some(pointer.into()), reason: None }
    }

    /// Fills in the `:reason` of the code's text.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The text that the client reads.
    #[must_use]
    pub fn message(&self) -> String {
        self.code.template().replace(":reason", self.reason.as_deref().unwrap_or_default())
    }
}

/// One remark on an accepted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What is remarkable.
    pub code: WarningCode,
    /// Which member of the body is meant, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What stands for `:reason` in the code's text.
    pub reason: Option<String>,
}

impl Warning {
    /// A remark on one member of the body.
    #[must_use]
    pub fn at(code: WarningCode, pointer: impl Into<String>) -> Self {
        Self { code, pointer: pointer.into(), reason: None }
    }

    /// Fills in the `:reason` of the code's text.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The text that the client reads.
    #[must_use]
    pub fn message(&self) -> String {
        self.code.template().replace(":reason", self.reason.as_deref().unwrap_or_default())
    }
}
