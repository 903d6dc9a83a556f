//! `DELETE /custom_csrs/{custom_csr_id}`: destroys a custom CSR and its private key, at once or when it can no longer be restored.

use std::sync::Arc;

use poem::{Request, RequestBody, web::Data};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions, Object, OpenApi,
    registry::{MetaParamIn, MetaSchema, MetaSchemaRef},
};
use serde::Serialize;
use shared::{
    clock::Timestamp,
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
        flag,
        path::Path,
        payload::Json,
        query::{inline, schema},
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

/// `now`: whether the private key is destroyed at once.
struct Now(Result<bool, Issue>);

impl<'a> ApiExtractor<'a> for Now {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        let description = "Destroy it at once, even if it was deleted before and can still be restored.";
        Some(inline(MetaSchema { default: Some(false.into()), ..schema("boolean", description) }))
    }

    async fn from_request(req: &'a Request, _: &mut RequestBody, options: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self(flag::parse(req.uri().query().unwrap_or_default(), options.name)))
    }
}

/// The operation.
pub struct Delete;

impl Operation for Delete {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1418, 1464."),
        (403, "No access: 1404."),
        (404, "No such custom CSR in this scope (1419), or no such route (7000)."),
        (409, "An active certificate uses the custom CSR: 1420."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Delete {
    /// Delete a custom CSR
    ///
    /// Destroys the private key with it and gives its quota back: at once, or, if the service keeps deleted custom CSRs for a while, when it can no
    /// longer be restored. Until then it is not found, and counts against the quota; `messages` says how long. Expired certificates that use it
    /// are deleted at once.
    #[oai(path = "/custom_csrs/:custom_csr_id", method = "delete", operation_id = "custom-csrs-delete")]
    async fn delete(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
        now: Now,
    ) -> Result<Json<DeletedCustomCsrResponse>, Failure<Delete>> {
        let (scope, id, deadline) = (access.scope(CustomCsrsWrite)?, id.id()?, Deadline::default());
        let is_now = match now.0 {
            Ok(is_now) => is_now,
            Err(issue) => {
                find::custom_csr(&state, deadline, scope, id).await?;
                return Err(issue.into());
            }
        };
        let (at, actor) = (state.clock.now(), access.actor());
        let destroy_after = (!state.delete_grace.is_zero()).then(|| at.plus(state.delete_grace));
        let deletion = match destroy_after {
            _ if is_now => deadline.write(state.store.destroy_custom_csr(scope, id, actor, at)).await?,
            None => deadline.write(state.store.delete_custom_csr(scope, id, actor, at)).await?,
            Some(until) => deadline.write(state.store.hide_custom_csr(scope, id, until, actor, at)).await?,
        };
        match deletion {
            Deletion::Deleted => {}
            Deletion::NotFound => return Err(ErrorCode::CustomCsrNotFound.into()),
            Deletion::InUse => return Err(in_use(state.0, deadline, scope, id).await?.into()),
        }
        let messages = destroy_after.filter(|_| !is_now).map(|until| restorable(&access, id, until));
        let deleted = DeletedCustomCsr { id: Uuid(id.to_string()) };
        Ok(Json(DeletedCustomCsrResponse::new(deleted, messages.into_iter().collect())))
    }
}

/// The hint how a custom CSR can be restored.
fn restorable(access: &Access, id: CustomCsrId, until: Timestamp) -> Message {
    let path = access.location(&format!("custom_csrs/{id}/restore"));
    let until = until.rfc3339();
    Message::hint(
        format!("Until {until}, POST {path} brings it back, and it counts against the quota. Then its private key is destroyed."),
        None,
    )
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
