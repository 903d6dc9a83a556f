//! `POST /custom_csrs/{custom_csr_id}/restore`: restores a deleted custom CSR, while that is possible.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::OpenApi;
use shared::{codes::ErrorCode, ids::CustomCsrId, storage::Restoration};

use super::{
    dto::{CustomCsrResponse, TAG},
    find::check_grant,
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsWrite},
    grants,
    http::{
        deadline::Deadline,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
    },
    state::AppState,
};

/// The operation.
pub struct Restore;

impl Operation for Restore {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1418."),
        (403, "No access (1404), or no quota allocated (1403)."),
        (404, "No such custom CSR in this scope, or it can no longer be restored (1419), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Restore {
    /// Restore a custom CSR
    ///
    /// Brings a deleted custom CSR back as it was, with its private key, as long as the service keeps it. One that is not deleted stays as it is.
    /// What was deleted along with it, such as expired certificates, does not come back. Answers 429 (1470) if it is pending and this
    /// zone or account already has as many pending custom CSRs as the service allows.
    #[oai(path = "/custom_csrs/:custom_csr_id/restore", method = "post", operation_id = "custom-csrs-restore")]
    async fn restore(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
    ) -> Result<Json<CustomCsrResponse>, Failure<Restore>> {
        let (state, deadline) = (state.0, Deadline::default());
        let scope = access.scope(CustomCsrsWrite)?;
        check_grant(state, deadline, scope).await?;
        let id = id.id()?;
        let restoring = state.store.restore_custom_csr(scope, id, state.max_pending, access.actor(), state.clock.now());
        match deadline.write(restoring).await? {
            Restoration::Restored(csr) => Ok(Json(CustomCsrResponse::new((*csr).into(), Vec::new()))),
            Restoration::NotFound => Err(ErrorCode::CustomCsrNotFound.into()),
            Restoration::NotGranted => {
                // It says why. If it finds a grant, that came just now.
                check_grant(state, deadline, scope).await?;
                Err(ErrorCode::AccessNotGranted.into())
            }
            Restoration::TooManyPending => Err(grants::too_many_pending(scope, state.max_pending, 1).into()),
        }
    }
}
