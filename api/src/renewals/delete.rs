//! `DELETE /renewal_policy`: deletes the renewal policy of a zone.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use shared::codes::ErrorCode;

use super::dto::TAG;
use crate::{
    auth::{access::Access, caller::Permission::CustomCertificatesWrite},
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        failure::{Failure, Operation},
        payload::Json,
    },
    state::AppState,
};

/// Whose policy was deleted.
#[derive(Debug, Object, Serialize)]
pub struct DeletedRenewalPolicy {
    /// The zone.
    pub zone_id: String,
}

envelopes! {
    /// Whose policy was deleted.
    DeletedRenewalPolicyResponse(DeletedRenewalPolicy) {}
}

/// The operation.
pub struct Delete;

impl Operation for Delete {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402."),
        (403, "No access: 1404."),
        (404, "The zone has no renewal policy (1512), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Delete {
    /// Delete the renewal policy
    ///
    /// No further renewals begin. A certificate whose renewal has a CSR can still be renewed with it.
    #[oai(path = "/renewal_policy", method = "delete", operation_id = "renewal-policies-delete")]
    async fn delete(&self, state: Data<&Arc<AppState>>, access: Access) -> Result<Json<DeletedRenewalPolicyResponse>, Failure<Delete>> {
        let zone = access.scope(CustomCertificatesWrite)?;
        let deleting = state.store.delete_renewal_policy(zone, access.actor(), state.clock.now());
        if !Deadline::default().write(deleting).await? {
            return Err(ErrorCode::RenewalPolicyNotFound.into());
        }
        Ok(Json(DeletedRenewalPolicyResponse::new(DeletedRenewalPolicy { zone_id: zone.id().to_string() }, Vec::new())))
    }
}
