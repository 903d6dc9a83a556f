//! Issues: what is wrong with a request. Warnings: what its sender should know although it was accepted.

use crate::codes::{ErrorCode, WarningCode};

/// One fault of a request: its code, its place, and the reason for codes whose text has a `:reason`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// What is wrong.
    pub code: ErrorCode,
    /// The member of the body, as a JSON pointer (RFC 6901), or `None` for the request as a whole.
    pub pointer: Option<String>,
    /// The text that replaces `:reason` in the code's text.
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

/// One warning about an accepted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What the warning is about.
    pub code: WarningCode,
    /// The member of the body, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// The text that replaces `:reason` in the code's text.
    pub reason: Option<String>,
}

impl Warning {
    /// A warning about one member of the body.
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
