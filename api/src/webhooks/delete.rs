//! `DELETE /webhooks/{webhook_id}`: deletes a webhook with its secret and its deliveries.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use shared::{codes::ErrorCode, ids::WebhookId};

use super::dto::TAG;
use crate::{
    auth::{access::Access, caller::Permission::WebhooksWrite},
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
        types::Uuid,
    },
    state::AppState,
};

/// The ID of what was deleted.
#[derive(Debug, Object, Serialize)]
pub struct DeletedWebhook {
    /// Its ID.
    pub id: Uuid,
}

envelopes! {
    /// What was deleted.
    DeletedWebhookResponse(DeletedWebhook) {}
}

/// The operation.
pub struct Delete;

impl Operation for Delete {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1492."),
        (403, "No access: 1404."),
        (404, "No such webhook in this scope (1493), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Delete {
    /// Delete a webhook
    ///
    /// Destroys its secret, and what it was still to be told.
    #[oai(path = "/webhooks/:webhook_id", method = "delete", operation_id = "webhooks-delete")]
    async fn delete(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "webhook_id")] id: Path<WebhookId>,
    ) -> Result<Json<DeletedWebhookResponse>, Failure<Delete>> {
        let (scope, id) = (access.scope(WebhooksWrite)?, id.id()?);
        let deleting = state.store.delete_webhook(scope, id, access.actor(), state.clock.now());
        if !Deadline::default().write(deleting).await? {
            return Err(ErrorCode::WebhookNotFound.into());
        }
        Ok(Json(DeletedWebhookResponse::new(DeletedWebhook { id: Uuid(id.to_string()) }, Vec::new())))
    }
}
