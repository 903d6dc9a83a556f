//! `GET /renewal_policy`: the renewal policy of a zone.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::OpenApi;
use shared::codes::ErrorCode;

use super::dto::{RenewalPolicyResponse, TAG};
use crate::{
    auth::{access::Access, caller::Permission::CustomCertificatesRead},
    http::{
        deadline::Deadline,
        failure::{Failure, Operation},
        payload::Json,
    },
    state::AppState,
};

/// The operation.
pub struct Get;

impl Operation for Get {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402."),
        (403, "No access: 1404."),
        (404, "The zone has no renewal policy (1512), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Get {
    /// Get the renewal policy
    ///
    /// How the zone's certificates are renewed.
    #[oai(path = "/renewal_policy", method = "get", operation_id = "renewal-policies-get")]
    async fn get(&self, state: Data<&Arc<AppState>>, access: Access) -> Result<Json<RenewalPolicyResponse>, Failure<Get>> {
        let zone = access.scope(CustomCertificatesRead)?;
        let found = Deadline::default().read(state.store.find_renewal_policy(zone)).await?;
        let policy = found.ok_or(ErrorCode::RenewalPolicyNotFound)?;
        Ok(Json(RenewalPolicyResponse::new(policy.into(), Vec::new())))
    }
}
