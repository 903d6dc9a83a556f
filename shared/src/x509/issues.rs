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

/// 1429 for a leaf of another key.
#[must_use]
pub fn other_key() -> Issue {
    issue(ErrorCode::CertificateKeyMismatch, "is not the custom CSR's; send the certificate that the CA issued for its CSR")
        .hinting("If the CA signed the CSR of another custom CSR, send the ID of that one.")
}

/// 1473 for a private key among the certificates.
#[must_use]
pub fn private_key_refused() -> Issue {
    issue(
        ErrorCode::PrivateKeyRefused,
        "Remove it from certificate, and consider this key exposed: do not use it again, and have certificates for it revoked.",
    )
}
