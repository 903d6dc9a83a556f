//! What several operations look up: the custom CSR of an ID, and the grant of a scope.

use shared::{
    codes::ErrorCode,
    custom_csr::CustomCsr,
    ids::{CustomCsrId, Scope},
};

use crate::{
    grants,
    http::{deadline::Deadline, error::ApiError},
    state::AppState,
};

/// The custom CSR of a scope.
///
/// # Errors
///
/// 1419 if it does not exist there.
pub async fn custom_csr(state: &AppState, deadline: Deadline, scope: &Scope, id: CustomCsrId) -> Result<CustomCsr, ApiError> {
    let found = deadline.read(state.store.find_custom_csr(scope, id)).await?;
    found.ok_or_else(|| ErrorCode::CustomCsrNotFound.into())
}

/// Checks that a scope may have custom CSRs: 1403 and 1404 win over faults of the body. Accepted requests are checked in their own
/// transaction.
///
/// # Errors
///
/// 1404 if it was not granted them, 1403 if it has no quota.
pub async fn check_grant(state: &AppState, deadline: Deadline, scope: &Scope) -> Result<(), ApiError> {
    match deadline.read(state.store.find_scope(scope)).await? {
        Some(grant) if grant.granted && grant.quota.is_some() => Ok(()),
        Some(grant) if grant.granted => Err(grants::no_quota(scope).into()),
        grant => Err(grants::not_granted(scope, grant.as_ref()).into()),
    }
}
