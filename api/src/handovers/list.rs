//! `GET /custom_csrs/{custom_csr_id}/handover`: lists the hand-over links of a custom CSR.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::OpenApi;
use shared::ids::CustomCsrId;

use super::dto::{HandoverListResponse, TAG};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsRead},
    custom_csrs::find,
    http::{
        deadline::Deadline,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
    },
    state::AppState,
};

/// The operation.
pub struct List;

impl Operation for List {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1418."),
        (403, "No access: 1404."),
        (404, "No such custom CSR in this zone (1419), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl List {
    /// List the hand-over links of a custom CSR
    ///
    /// The newest first, with those that have ended. None has its `url`.
    #[oai(path = "/custom_csrs/:custom_csr_id/handover", method = "get", operation_id = "handovers-list")]
    async fn list(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
    ) -> Result<Json<HandoverListResponse>, Failure<List>> {
        let (scope, id, deadline) = (access.scope(CustomCsrsRead)?, id.id()?, Deadline::default());
        find::custom_csr(state.0, deadline, scope, id).await?;
        let handovers = deadline.read(state.store.list_handovers(scope, id)).await?;
        Ok(Json(HandoverListResponse::new(handovers.into_iter().map(Into::into).collect(), Vec::new())))
    }
}
