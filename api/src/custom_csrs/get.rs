//! `GET /custom_csrs/{custom_csr_id}`: one custom CSR. The answer waits until it is no longer pending if the client prefers that.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{ApiResponse, OpenApi};
use shared::{codes::ErrorCode, ids::CustomCsrId};

use super::{
    dto::{CustomCsrResponse, TAG},
    find,
    wait::{self, Prefer, Waited},
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsRead},
    http::{
        deadline::Deadline,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
    },
    state::AppState,
};

/// What GET of one answers.
#[derive(ApiResponse)]
pub enum Found {
    /// The custom CSR as it is now.
    #[oai(status = 200)]
    Found(
        Json<CustomCsrResponse>,
        /// `wait=N` where `Prefer: wait=N` was followed.
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
}

/// The operation.
pub struct Get;

impl Operation for Get {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1418."),
        (403, "No access: 1404."),
        (404, "No such custom CSR in this scope (1419), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Get {
    /// Get a custom CSR
    #[oai(path = "/custom_csrs/:custom_csr_id", method = "get", operation_id = "custom-csrs-get")]
    async fn get(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
        #[oai(name = "Prefer")] prefer: Prefer,
    ) -> Result<Found, Failure<Get>> {
        let (state, deadline) = (state.0, Deadline::default());
        let (scope, id) = (access.scope(CustomCsrsRead)?, id.id()?);
        let Some(secs) = prefer.secs() else {
            let csr = find::custom_csr(state, deadline, scope, id).await?;
            return Ok(Found::Found(Json(CustomCsrResponse::new(csr.into(), Vec::new())), None));
        };
        let changes = state.store.signals().changes_of(id);
        let csr = find::custom_csr(state, deadline, scope, id).await?;
        let Waited { custom_csr, applied_secs } = wait::until_not_pending(state, csr, changes, access.subject(), secs, deadline).await;
        let csr = custom_csr.ok_or(ErrorCode::CustomCsrNotFound)?;
        Ok(Found::Found(Json(CustomCsrResponse::new(csr.into(), Vec::new())), applied_secs.map(wait::applied)))
    }
}
