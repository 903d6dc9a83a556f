//! `GET /custom_csrs/quota`: how many custom CSRs there may be, and are.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use shared::storage::ScopeGrant;

use super::dto::TAG;
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsRead},
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        failure::{Failure, Operation},
        payload::Json,
    },
    state::AppState,
};

/// How many custom CSRs there may be, and are.
#[derive(Debug, Object, Serialize)]
pub struct Quota {
    /// How many are allowed; 0 if no quota is allocated.
    pub allocated: u32,
    /// How many exist, failed ones and deleted ones that can still be restored included.
    pub used: u32,
}

impl From<Option<ScopeGrant>> for Quota {
    fn from(grant: Option<ScopeGrant>) -> Self {
        let allocated = grant.as_ref().filter(|grant| grant.granted).and_then(|grant| grant.quota).unwrap_or_default();
        Self { allocated, used: grant.map_or(0, |grant| grant.used) }
    }
}

envelopes! {
    /// The quota of a zone or an account.
    QuotaResponse(Quota) {}
}

/// The operation.
pub struct GetQuota;

impl Operation for GetQuota {
    const ERRORS: &'static [(u16, &'static str)] =
        &[(400, "The request is wrong: 1401, 1402."), (403, "No access: 1404."), (404, "No such route: 7000.")];
}

#[OpenApi(tag = "TAG")]
impl GetQuota {
    /// Get the quota
    ///
    /// How many custom CSRs there may be, and are.
    #[oai(path = "/custom_csrs/quota", method = "get", operation_id = "custom-csrs-quota")]
    async fn get_quota(&self, state: Data<&Arc<AppState>>, access: Access) -> Result<Json<QuotaResponse>, Failure<GetQuota>> {
        let scope = access.scope(CustomCsrsRead)?;
        let grant = Deadline::default().read(state.store.find_scope(scope)).await?;
        Ok(Json(QuotaResponse::new(grant.into(), Vec::new())))
    }
}
