//! `GET /webhooks/{webhook_id}/deliveries`: what a webhook was told last.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use shared::{codes::ErrorCode, ids::WebhookId};

use super::dto::{DeliveryDto, TAG};
use crate::{
    auth::{access::Access, caller::Permission::WebhooksRead},
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
    },
    state::AppState,
};

envelopes! {
    /// Deliveries of a webhook.
    DeliveryListResponse(Vec<DeliveryDto>) {}
}

/// The operation.
pub struct ListDeliveries;

impl Operation for ListDeliveries {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1492."),
        (403, "No access: 1404."),
        (404, "No such webhook in this scope (1493), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl ListDeliveries {
    /// List the deliveries of a webhook
    ///
    /// The last 100, the newest first.
    #[oai(path = "/webhooks/:webhook_id/deliveries", method = "get", operation_id = "webhooks-deliveries")]
    async fn list_deliveries(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "webhook_id")] id: Path<WebhookId>,
    ) -> Result<Json<DeliveryListResponse>, Failure<ListDeliveries>> {
        let (scope, id) = (access.scope(WebhooksRead)?, id.id()?);
        let found = Deadline::default().read(state.store.list_deliveries(scope, id)).await?;
        let deliveries = found.ok_or(ErrorCode::WebhookNotFound)?;
        Ok(Json(DeliveryListResponse::new(deliveries.into_iter().map(DeliveryDto::from).collect(), Vec::new())))
    }
}
