//! Why the store does not take a certificate, for the client.

use shared::{
    codes::ErrorCode,
    issue::Issue,
    storage::{CertificateRefusal, MAX_CERTIFICATES_OF_CSR},
};

use crate::{
    grants::{revoked, too_many_keys},
    http::error::ApiError,
};

/// The error of a refusal; `csr_not_found` says which custom CSR the request meant.
#[must_use]
pub fn refused(refusal: CertificateRefusal, csr_not_found: fn() -> ApiError) -> ApiError {
    match refusal {
        // Everything that gets here was granted a moment ago, or when it got its first certificate.
        CertificateRefusal::NotGranted => Issue::new(ErrorCode::AccessNotGranted).hinting(revoked("zone")).into(),
        CertificateRefusal::CsrGone => csr_not_found(),
        CertificateRefusal::Stored(id) => Issue::at(ErrorCode::CertificateStored, "/certificate").because(id.to_string()).into(),
        CertificateRefusal::CsrFull => {
            Issue::at(ErrorCode::TooManyCertificates, "/custom_csr_id").because(MAX_CERTIFICATES_OF_CSR.to_string()).into()
        }
        CertificateRefusal::KeyTaken => ErrorCode::IdempotencyKeyReused.into(),
        CertificateRefusal::TooManyKeys => too_many_keys("zone").into(),
        CertificateRefusal::HandoverEnded => ErrorCode::HandoverNotFound.into(),
    }
}

/// 1431 for the `custom_csr_id` that was sent.
#[must_use]
pub fn named_csr_not_found() -> ApiError {
    let reason = "of custom_csr_id was not found in this zone or its account";
    Issue::at(ErrorCode::CertificateCsrNotFound, "/custom_csr_id").because(reason).into()
}

/// 1431 if no `custom_csr_id` was sent.
#[must_use]
pub fn used_csr_not_found() -> ApiError {
    let reason = "that this custom certificate uses cannot be used by its zone now: its account is not granted custom CSRs, or is not the \
                  zone's. Have that changed, or send the custom_csr_id of another custom CSR with a certificate that was issued for it";
    Issue::at(ErrorCode::CertificateCsrNotFound, "/certificate").because(reason).into()
}
