//! `DELETE /custom_csrs/{custom_csr_id}/handover/{handover_id}`: revokes a hand-over link.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::OpenApi;
use shared::{
    codes::ErrorCode,
    ids::{CustomCsrId, HandoverId},
};

use super::dto::{RevokedHandover, RevokedHandoverResponse, TAG};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsWrite},
    custom_csrs::find,
    http::{
        deadline::Deadline,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
        types::Uuid,
    },
    state::AppState,
};

/// The operation.
pub struct Revoke;

impl Operation for Revoke {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1418, 1497."),
        (403, "No access: 1404."),
        (404, "No such custom CSR in this zone (1419), no such link of it (1498), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Revoke {
    /// Revoke a hand-over link
    ///
    /// From then on, its page says that it has ended. A link that has already ended stays as it is.
    #[oai(path = "/custom_csrs/:custom_csr_id/handover/:handover_id", method = "delete", operation_id = "handovers-delete")]
    async fn revoke(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] csr_id: Path<CustomCsrId>,
        #[oai(name = "handover_id")] id: Path<HandoverId>,
    ) -> Result<Json<RevokedHandoverResponse>, Failure<Revoke>> {
        let (scope, csr_id, deadline) = (access.scope(CustomCsrsWrite)?, csr_id.id()?, Deadline::default());
        let id = id.id()?;
        let revoking = state.store.revoke_handover(scope, csr_id, id, access.actor(), state.clock.now());
        if !deadline.write(revoking).await? {
            find::custom_csr(state.0, deadline, scope, csr_id).await?;
            return Err(ErrorCode::HandoverNotFound.into());
        }
        Ok(Json(RevokedHandoverResponse::new(RevokedHandover { id: Uuid(id.to_string()) }, Vec::new())))
    }
}
