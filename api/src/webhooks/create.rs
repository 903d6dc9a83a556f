//! `POST /webhooks`: makes a webhook.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{ApiResponse, Object, OpenApi};
use shared::{
    bodies::{
        undecodable::explained,
        webhook::{WebhookBody, url_refused},
    },
    codes::ErrorCode,
    ids::WebhookId,
    issue::Issue,
    outbound::Gate,
    storage::{NewWebhook, StoreError, WebhookCreation},
    webhook::WEBHOOKS_MAX,
    webhook_secret::{WebhookKey, WebhookSecret},
};
use worker::NoWebhookKey;

use super::dto::{EventType, TAG, WebhookDto, WebhookResponse};
use crate::{
    auth::{access::Access, caller::Permission::WebhooksWrite},
    grants,
    http::{
        body::Body,
        deadline::Deadline,
        envelope::Message,
        error::ApiError,
        failure::{Failure, Operation},
        payload::Json,
    },
    state::AppState,
};

/// A request for a webhook. Unknown members are ignored, with warning 2012; `null` is the same as absent.
#[derive(Debug, Object)]
#[oai(rename = "WebhookRequest")]
pub struct WebhookInput {
    /// Where events are posted to: https, to a public address.
    #[oai(validator(min_length = 1, max_length = 2048))]
    pub url: String,
    /// The types of events, or `*` for all.
    #[oai(validator(min_items = 1))]
    pub events: Vec<EventType>,
    /// Your own description.
    #[oai(nullable, validator(max_length = 1024, pattern = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"))]
    pub description: Option<String>,
    /// Whether it is told of events; true if absent.
    #[oai(nullable)]
    pub enabled: Option<bool>,
}

/// What POST answers.
#[derive(ApiResponse)]
pub enum Created {
    /// Made. The answer is the only one with the `secret`.
    #[oai(status = 201)]
    Created(
        Json<WebhookResponse>,
        /// Where to read it: an absolute path.
        #[oai(header = "Location")]
        String,
    ),
}

/// The operation.
pub struct Create;

impl Operation for Create {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1400 to 1402, 1490, 1491, 1461, 1462. Several faults are reported together."),
        (403, "No access: 1404."),
        (404, "No such route: 7000."),
        (409, "There are as many webhooks as there may be: 1494."),
        (415, "The body is compressed: 1468."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Create {
    /// Create a webhook
    ///
    /// Its `url` is told of events by POST, signed as in Standard Webhooks (standardwebhooks.com), until it answers with a status 2xx; an
    /// account's is told of the events of its zones too. Keep the `secret` of the answer: it verifies the signatures, and is not shown again.
    #[oai(path = "/webhooks", method = "post", operation_id = "webhooks-create")]
    async fn create(&self, state: Data<&Arc<AppState>>, access: Access, body: Body<WebhookInput>) -> Result<Created, Failure<Create>> {
        let (state, deadline) = (state.0, Deadline::default());
        let scope = access.scope(WebhooksWrite)?;
        let json = body.json()?;
        let asked = WebhookBody::parse_new(json, &state.gate).map_err(|issues| ApiError::new(explained(json, issues)))?;
        let url = checked(&state.gate, asked.url.unwrap_or_default()).await?;
        let (now, key) = (state.clock.now(), key(state, deadline).await?);
        let id = WebhookId::new(now);
        let secret = WebhookSecret::generate().map_err(|_| ErrorCode::Internal)?;
        let sealed_secret = secret.seal(&key.public_key, &id.to_string(), &scope.to_string()).map_err(|_| ErrorCode::Internal)?;
        let new = NewWebhook {
            id,
            scope: scope.clone(),
            url,
            events: asked.events.unwrap_or_default(),
            description: asked.description.flatten(),
            enabled: asked.enabled.unwrap_or(true),
            webhook_key_id: key.id,
            sealed_secret,
        };
        let webhook = match deadline.write(state.store.create_webhook(&new, access.actor(), now)).await? {
            WebhookCreation::Created(webhook) => *webhook,
            WebhookCreation::NotGranted => {
                let grant = deadline.read(state.store.find_scope(scope)).await?;
                return Err(grants::not_granted(scope, grant.as_ref()).into());
            }
            WebhookCreation::TooMany => return Err(Issue::new(ErrorCode::TooManyWebhooks).because(WEBHOOKS_MAX.to_string()).into()),
        };
        let location = access.location(&format!("webhooks/{id}"));
        let messages = asked.warnings.iter().map(Message::from).collect();
        let made = WebhookDto { secret: Some(secret.to_text()), ..webhook.into() };
        Ok(Created::Created(Json(WebhookResponse::new(made, messages)), location))
    }
}

/// A URL that leads where webhooks may lead now.
///
/// # Errors
///
/// 1490 if it does not.
pub async fn checked(gate: &Gate, text: String) -> Result<String, ApiError> {
    let url = gate.target(&text).map_err(url_refused)?;
    gate.leads_out(&url).await.map_err(url_refused)?;
    Ok(text)
}

/// The key pair that seals secrets. A process without a master key takes the one that a worker made.
async fn key(state: &AppState, deadline: Deadline) -> Result<WebhookKey, ApiError> {
    let not_ready = |reason: &str| ApiError::from(Issue::new(ErrorCode::NotReady).because(reason));
    let Some(sealer) = &state.sealer else {
        let found = deadline.read(state.store.find_webhook_key()).await?;
        return found.ok_or_else(|| not_ready("no worker has started yet that makes the key for secrets of webhooks"));
    };
    let made = async {
        match worker::webhook_key(&*state.store, sealer, &*state.clock).await {
            Err(NoWebhookKey::Store(error)) => Err(error),
            made => Ok(made.ok()),
        }
    };
    let made: Result<_, StoreError> = deadline.read(made).await;
    made?.ok_or_else(|| not_ready("this process lacks the master key that seals"))
}
