//! Issues and warnings about the certificates of a request.

use crate::{
    codes::{ErrorCode, WarningCode},
    issue::{Issue, Warning},
};

/// The member of the request body that holds the certificates.
pub const POINTER: &str = "/certificate";

/// A fault of the certificates.
#[must_use]
pub fn issue(code: ErrorCode, reason: impl Into<String>) -> Issue {
    Issue::at(code, POINTER).because(reason)
}

/// A warning about the certificates.
#[must_use]
pub fn warning(code: WarningCode, reason: impl Into<String>) -> Warning {
    Warning::at(code, POINTER).because(reason)
}

/// 1473 for a private key among the certificates.
#[must_use]
pub fn private_key_refused() -> Issue {
    issue(
        ErrorCode::PrivateKeyRefused,
        "Remove it from certificate, and consider this key exposed: do not use it again, and have certificates for it revoked.",
    )
}
