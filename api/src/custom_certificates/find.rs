//! Looks up a custom certificate.

use shared::{
    codes::ErrorCode,
    custom_certificate::CustomCertificate,
    ids::{CustomCertificateId, Scope},
};

use crate::{
    http::{deadline::Deadline, error::ApiError},
    state::AppState,
};

/// The custom certificate of a zone, or one that uses a custom CSR of an account.
///
/// # Errors
///
/// 1481 if it does not exist there.
pub async fn custom_certificate(
    state: &AppState,
    deadline: Deadline,
    scope: &Scope,
    id: CustomCertificateId,
) -> Result<CustomCertificate, ApiError> {
    let found = deadline.read(state.store.find_certificate(scope, id)).await?;
    found.ok_or_else(|| ErrorCode::CustomCertificateNotFound.into())
}
