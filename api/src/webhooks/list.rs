//! `GET /webhooks`: all webhooks of a zone or an account.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;

use super::dto::{TAG, WebhookDto};
use crate::{
    auth::{access::Access, caller::Permission::WebhooksRead},
    grants::hint_on_list,
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        failure::{Failure, Operation},
        payload::Json,
    },
    state::AppState,
};

envelopes! {
    /// The webhooks of a zone or an account.
    WebhookListResponse(Vec<WebhookDto>) {}
}

/// The operation.
pub struct List;

impl Operation for List {
    const ERRORS: &'static [(u16, &'static str)] =
        &[(400, "The request is wrong: 1401, 1402."), (403, "No access: 1404."), (404, "No such route: 7000.")];
}

#[OpenApi(tag = "TAG")]
impl List {
    /// List webhooks
    ///
    /// All of them, at most 10, the newest first.
    #[oai(path = "/webhooks", method = "get", operation_id = "webhooks-list")]
    async fn list(&self, state: Data<&Arc<AppState>>, access: Access) -> Result<Json<WebhookListResponse>, Failure<List>> {
        let (scope, deadline) = (access.scope(WebhooksRead)?, Deadline::default());
        let webhooks = deadline.read(state.store.list_webhooks(scope)).await?;
        let messages = hint_on_list(&state, deadline, scope, webhooks.len() as u64).await;
        Ok(Json(WebhookListResponse::new(webhooks.into_iter().map(WebhookDto::from).collect(), messages)))
    }
}
