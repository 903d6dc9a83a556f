//! `PATCH /webhooks/{webhook_id}`: changes a webhook.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use shared::{
    bodies::{undecodable::explained, webhook::WebhookBody},
    codes::ErrorCode,
    ids::WebhookId,
    storage::WebhookChange,
};

use super::{
    create::checked,
    dto::{EventType, TAG, WebhookResponse},
};
use crate::{
    auth::{access::Access, caller::Permission::WebhooksWrite},
    http::{
        body::Body,
        deadline::Deadline,
        envelope::Message,
        error::ApiError,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
    },
    state::AppState,
};

/// Changes to a webhook. An absent member keeps the value; `null` clears the description.
#[derive(Debug, Object)]
#[oai(rename = "WebhookEdit")]
pub struct WebhookEditInput {
    /// Where events are posted to: https, to a public address.
    #[oai(nullable, validator(min_length = 1, max_length = 2048))]
    pub url: Option<String>,
    /// The types of events, or `*` for all.
    #[oai(nullable, validator(min_items = 1))]
    pub events: Option<Vec<EventType>>,
    /// Your own description.
    #[oai(nullable, validator(max_length = 1024, pattern = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"))]
    pub description: Option<String>,
    /// Whether it is told of events. `true` forgets why the service disabled it, `false` gives up what is pending.
    #[oai(nullable)]
    pub enabled: Option<bool>,
}

/// The operation.
pub struct Edit;

impl Operation for Edit {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1400 to 1402, 1490 to 1492, 1461, 1462. Several faults are reported together."),
        (403, "No access: 1404."),
        (404, "No such webhook in this scope (1493), or no such route (7000)."),
        (415, "The body is compressed: 1468."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Edit {
    /// Change a webhook
    ///
    /// Changes `url`, `events`, `description` and `enabled`. The secret stays: make another webhook for another one.
    #[oai(path = "/webhooks/:webhook_id", method = "patch", operation_id = "webhooks-edit")]
    async fn edit(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "webhook_id")] id: Path<WebhookId>,
        body: Body<WebhookEditInput>,
    ) -> Result<Json<WebhookResponse>, Failure<Edit>> {
        let (state, deadline) = (state.0, Deadline::default());
        let (scope, id) = (access.scope(WebhooksWrite)?, id.id()?);
        deadline.read(state.store.find_webhook(scope, id)).await?.ok_or(ErrorCode::WebhookNotFound)?;
        let json = body.json()?;
        let asked = WebhookBody::parse_change(json, &state.gate).map_err(|issues| ApiError::new(explained(json, issues)))?;
        let url = match asked.url {
            Some(url) => Some(checked(&state.gate, url).await?),
            None => None,
        };
        let change = WebhookChange { url, events: asked.events, description: asked.description, enabled: asked.enabled };
        let editing = state.store.edit_webhook(scope, id, &change, access.actor(), state.clock.now());
        let edited = deadline.write(editing).await?.ok_or(ErrorCode::WebhookNotFound)?;
        Ok(Json(WebhookResponse::new(edited.into(), asked.warnings.iter().map(Message::from).collect())))
    }
}
