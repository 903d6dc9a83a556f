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
    /// Which part of the request outside the body is meant, if any.
    pub input: Option<Input>,
    /// What the code's text does not say: the cause in this case, or what was expected.
    pub hint: Option<String>,
    /// Warnings about members that the request does not have: one of them, spelled right, may be what is missing.
    pub unknown_members: Box<[Warning]>,
}

/// A part of a request outside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The query parameter of this name.
    Parameter(&'static str),
    /// The header of this name.
    Header(&'static str),
}

impl Issue {
    /// A fault of the request as a whole.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self { code, pointer: None, reason: None, input: None, hint: None, unknown_members: Box::default() }
    }

    /// A fault of one member of the body; `pointer` follows RFC 6901.
    #[must_use]
    pub fn at(code: ErrorCode, pointer: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..Self::new(code) }
    }

    /// A fault of a part of the request outside its body.
    #[must_use]
    pub fn of(code: ErrorCode, input: Input) -> Self {
        Self { input: Some(input), ..Self::new(code) }
    }

    /// Adds a hint: one or more sentences.
    #[must_use]
    pub fn hinting(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds those of these warnings that are about unknown members.
    #[must_use]
    pub fn beside(mut self, warnings: &[Warning]) -> Self {
        self.unknown_members = warnings.iter().filter(|warning| warning.code == WarningCode::UnknownMember).cloned().collect();
        self
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
        let (text, reason) = (self.code.template(), self.reason.as_deref());
        match (self.code, reason) {
            // The documented text has no `:reason`: it names the key types that are accepted by default.
            (ErrorCode::KeyTypeInvalid, Some(accepted)) => text.replace("‘rsa2048’ or ‘p256v1’", accepted),
            _ => text.replace(":reason", reason.unwrap_or_default()),
        }
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
