//! `DELETE /custom_csrs/{custom_csr_id}`: destroys a custom CSR and its private key.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use shared::{
    codes::ErrorCode,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    issue::Issue,
    storage::Deletion,
};

use super::{dto::TAG, find};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsWrite},
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        error::ApiError,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
        types::Uuid,
    },
    state::AppState,
};

/// The ID of what was deleted.
#[derive(Debug, Object, Serialize)]
pub struct DeletedCustomCsr {
    /// Its ID.
    pub id: Uuid,
}

envelopes! {
    /// What was deleted.
    DeletedCustomCsrResponse(DeletedCustomCsr) {}
}

/// The operation.
pub struct Delete;

impl Operation for Delete {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1418."),
        (403, "No access: 1404."),
        (404, "No such custom CSR in this scope (1419), or no such route (7000)."),
        (409, "An active certificate uses the custom CSR: 1420."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Delete {
    /// Delete a custom CSR
    ///
    /// Destroys the private key with it and gives its quota back.
    #[oai(path = "/custom_csrs/:custom_csr_id", method = "delete", operation_id = "custom-csrs-delete")]
    async fn delete(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
    ) -> Result<Json<DeletedCustomCsrResponse>, Failure<Delete>> {
        let (scope, id, deadline) = (access.scope(CustomCsrsWrite)?, id.id()?, Deadline::default());
        let deleting = state.store.delete_custom_csr(scope, id, access.actor(), state.clock.now());
        match deadline.write(deleting).await? {
            Deletion::Deleted => {}
            Deletion::NotFound => return Err(ErrorCode::CustomCsrNotFound.into()),
            Deletion::InUse => return Err(in_use(state.0, deadline, scope, id).await?.into()),
        }
        Ok(Json(DeletedCustomCsrResponse::new(DeletedCustomCsr { id: Uuid(id.to_string()) }, Vec::new())))
    }
}

/// 1420, which names the custom certificates.
async fn in_use(state: &AppState, deadline: Deadline, scope: &Scope, id: CustomCsrId) -> Result<Issue, ApiError> {
    let csr = find::custom_csr(state, deadline, scope, id).await?;
    Ok(used_by(&csr.certificate_ids))
}

/// 1420 for a custom CSR that these custom certificates use.
#[must_use]
pub fn used_by(certificate_ids: &[CustomCertificateId]) -> Issue {
    let ids: Vec<_> = certificate_ids.iter().map(ToString::to_string).collect();
    let hint = format!(
        "These custom certificates use it: {}. Delete them, or move each to another custom CSR with a PATCH that sends its custom_csr_id and \
         a certificate for it, which frees this one too.",
        ids.join(", ")
    );
    Issue::new(ErrorCode::CustomCsrInUse).hinting(hint)
}
