//! `GET /webhooks/{webhook_id}`: one webhook.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::OpenApi;
use shared::{codes::ErrorCode, ids::WebhookId};

use super::dto::{TAG, WebhookResponse};
use crate::{
    auth::{access::Access, caller::Permission::WebhooksRead},
    http::{
        deadline::Deadline,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
    },
    state::AppState,
};

/// The operation.
pub struct Get;

impl Operation for Get {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1492."),
        (403, "No access: 1404."),
        (404, "No such webhook in this scope (1493), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Get {
    /// Get a webhook
    ///
    /// Without its secret, which is shown once, when it is made.
    #[oai(path = "/webhooks/:webhook_id", method = "get", operation_id = "webhooks-get")]
    async fn get(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "webhook_id")] id: Path<WebhookId>,
    ) -> Result<Json<WebhookResponse>, Failure<Get>> {
        let (scope, id) = (access.scope(WebhooksRead)?, id.id()?);
        let found = Deadline::default().read(state.store.find_webhook(scope, id)).await?;
        let webhook = found.ok_or(ErrorCode::WebhookNotFound)?;
        Ok(Json(WebhookResponse::new(webhook.into(), Vec::new())))
    }
}
