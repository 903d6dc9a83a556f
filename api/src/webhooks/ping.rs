//! `POST /webhooks/{webhook_id}/ping`: tries a webhook.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;
use shared::{codes::ErrorCode, ids::WebhookId};

use super::dto::{DeliveryDto, TAG};
use crate::{
    auth::{access::Access, caller::Permission::WebhooksWrite},
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
    /// One delivery.
    DeliveryResponse(DeliveryDto) {}
}

/// What a ping answers.
#[derive(ApiResponse)]
pub enum Pinged {
    /// Its delivery, which is pending.
    #[oai(status = 201)]
    Recorded(Json<DeliveryResponse>),
}

/// The operation.
pub struct Ping;

impl Operation for Ping {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1492."),
        (403, "No access: 1404."),
        (404, "No such webhook in this scope (1493), or no such route (7000)."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Ping {
    /// Ping a webhook
    ///
    /// Has it told an event of the type `ping`, enabled or not. The deliveries show how that goes.
    #[oai(path = "/webhooks/:webhook_id/ping", method = "post", operation_id = "webhooks-ping")]
    async fn ping(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "webhook_id")] id: Path<WebhookId>,
    ) -> Result<Pinged, Failure<Ping>> {
        let (scope, id) = (access.scope(WebhooksWrite)?, id.id()?);
        let now = state.clock.now();
        let delivery_id = WebhookId::new(now).to_string().replace('-', "");
        let pinging = state.store.ping_webhook(scope, id, &delivery_id, now);
        let delivery = Deadline::default().write(pinging).await?.ok_or(ErrorCode::WebhookNotFound)?;
        Ok(Pinged::Recorded(Json(DeliveryResponse::new(delivery.into(), Vec::new()))))
    }
}
