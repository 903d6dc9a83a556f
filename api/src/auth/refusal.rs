//! Why a token is not accepted.

use std::borrow::Cow;

use shared::codes::ErrorCode;

/// Why a token is not accepted. It holds nothing of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 1402, 1000 to 1005, or 1471.
    pub code: ErrorCode,
    /// The cause, for the client.
    pub cause: Cow<'static, str>,
    /// The cause with more about it, for the operator.
    detail: Option<String>,
    /// Whether newer keys might change it.
    pub(super) is_for_want_of_a_key: bool,
}

impl Refusal {
    /// A refusal for this cause.
    #[must_use]
    pub fn new(code: ErrorCode, cause: impl Into<Cow<'static, str>>) -> Self {
        Self { code, cause: cause.into(), detail: None, is_for_want_of_a_key: false }
    }

    /// One that newer keys might change.
    #[must_use]
    pub fn for_want_of_a_key(self) -> Self {
        Self { is_for_want_of_a_key: true, ..self }
    }

    /// With words that only the operator reads.
    #[must_use]
    pub fn with_detail(self, detail: String) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// The cause, for the operator.
    #[must_use]
    pub fn detail(&self) -> &str {
        self.detail.as_deref().unwrap_or(&self.cause)
    }
}
