//! `PATCH /custom_csrs/{custom_csr_id}`: changes the name and the description of a custom CSR.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use shared::{
    bodies::{edit::Edit as Changes, undecodable::explained},
    codes::ErrorCode,
    ids::CustomCsrId,
};

use super::{
    dto::{CustomCsrResponse, TAG},
    find,
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsWrite},
    http::{
        body::Body,
        deadline::Deadline,
        envelope::Message,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
    },
    state::AppState,
};

/// Changes to name and description. An absent member keeps the value, `null` and the empty string clear it.
#[derive(Debug, Object)]
#[oai(rename = "CustomCsrEdit")]
pub struct CustomCsrEditInput {
    /// Your own name for it.
    #[oai(nullable, validator(max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"))]
    pub name: Option<String>,
    /// A free-form description.
    #[oai(nullable, validator(max_length = 1024, pattern = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"))]
    pub description: Option<String>,
}

/// The operation.
pub struct Edit;

impl Operation for Edit {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1400 to 1402, 1418, 1461, 1462. Several faults are reported together."),
        (403, "No access: 1404."),
        (404, "No such custom CSR in this scope (1419), or no such route (7000)."),
        (415, "The body is compressed: 1468."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Edit {
    /// Rename a custom CSR
    ///
    /// Changes `name` and `description`, and nothing else: the key and the CSR stay.
    #[oai(path = "/custom_csrs/:custom_csr_id", method = "patch", operation_id = "custom-csrs-edit")]
    async fn edit(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
        body: Body<CustomCsrEditInput>,
    ) -> Result<Json<CustomCsrResponse>, Failure<Edit>> {
        let (state, deadline) = (state.0, Deadline::default());
        let (scope, id) = (access.scope(CustomCsrsWrite)?, id.id()?);
        find::custom_csr(state, deadline, scope, id).await?;
        let body = body.json()?;
        let (changes, warnings) = Changes::parse(body).map_err(|issues| explained(body, issues))?;
        let editing = state.store.edit_custom_csr(scope, id, &changes, access.actor(), state.clock.now());
        let edited = deadline.write(editing).await?.ok_or(ErrorCode::CustomCsrNotFound)?;
        Ok(Json(CustomCsrResponse::new(edited.into(), warnings.iter().map(Message::from).collect())))
    }
}
