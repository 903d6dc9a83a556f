//! `DELETE /custom_certificates/{custom_certificate_id}`: deletes a custom certificate.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use shared::{codes::ErrorCode, ids::CustomCertificateId};

use super::dto::TAG;
use crate::{
    auth::{access::Access, caller::Permission::CustomCertificatesWrite},
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
        worded::AccountWords,
    },
    state::AppState,
};

/// The ID of what was deleted.
#[derive(Debug, Object, Serialize)]
pub struct DeletedCustomCertificate {
    /// Its ID.
    pub id: String,
}

envelopes! {
    /// What was deleted.
    DeletedCustomCertificateResponse(DeletedCustomCertificate) {}
}

/// The operation.
pub struct Delete;

impl Operation for Delete {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1480."),
        (403, "No access: 1404."),
        (404, "No such custom certificate in this zone, or for a custom CSR of this account (1481), or no such route (7000)."),
    ];
}

impl AccountWords for Delete {
    const SUMMARY: &'static str = "Delete a custom certificate that uses a custom CSR of the account";
    const DESCRIPTION: Option<&'static str> =
        Some("It is gone from its zone. The custom CSR can then be deleted, unless another certificate uses it.");
}

#[OpenApi(tag = "TAG")]
impl Delete {
    /// Delete a custom certificate
    ///
    /// Its custom CSR can then be deleted, unless another certificate uses it.
    #[oai(path = "/custom_certificates/:custom_certificate_id", method = "delete", operation_id = "custom-certificates-delete")]
    async fn delete(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_certificate_id")] id: Path<CustomCertificateId>,
    ) -> Result<Json<DeletedCustomCertificateResponse>, Failure<Delete>> {
        let (scope, id) = (access.scope(CustomCertificatesWrite)?, id.id()?);
        let deleting = state.store.delete_certificate(scope, id, access.actor(), state.clock.now());
        if !Deadline::default().write(deleting).await? {
            return Err(ErrorCode::CustomCertificateNotFound.into());
        }
        Ok(Json(DeletedCustomCertificateResponse::new(DeletedCustomCertificate { id: id.to_string() }, Vec::new())))
    }
}
