//! Webhooks and deliveries on the wire.

use std::borrow::Cow;

use poem_openapi::{
    Enum, Object,
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde::Serialize;
use serde_json::Value;
use shared::{
    codes::ErrorCode,
    events,
    ids::{Scope, WebhookId},
    webhook::{self, Delivery, Webhook},
};

use crate::http::{
    envelope::{Message, envelopes},
    mounted::Tag,
    path::PathId,
    types::{DateTime, Nullable, Uuid},
};

/// The tag of the operations.
pub const TAG: Tag = Tag("webhooks");

impl PathId for WebhookId {
    const INVALID: ErrorCode = ErrorCode::WebhookIdInvalid;
    const FORM: &'static str = "The ID of a webhook is a UUID: 36 characters, as in 0190163d-8694-7739-aea5-966c26f8ad91.";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn schema() -> MetaSchema {
        MetaSchema { description: Some("The webhook's ID."), ..MetaSchema::new_with_format("string", "uuid") }
    }
}

/// A type of events, or `*`, as requests have it. The document says so by a pattern: generators make no good name of `*` in an enum.
#[derive(Debug)]
pub struct EventType(pub String);

impl Type for EventType {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_event_type".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        let types = events::TYPES.join("|").replace('.', r"\.");
        MetaSchemaRef::Inline(Box::new(MetaSchema { pattern: Some(format!(r"^(\*|{types})$")), ..MetaSchema::new("string") }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ToJSON for EventType {
    fn to_json(&self) -> Option<Value> {
        Some(self.0.clone().into())
    }
}

impl ParseFromJSON for EventType {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        String::parse_from_json(value).map(Self).map_err(ParseError::propagate)
    }
}

/// A webhook.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Webhook")]
pub struct WebhookDto {
    /// Its ID.
    pub id: Uuid,
    /// The zone that it was made in; null for an account's.
    pub zone_id: Nullable<String>,
    /// The account that it was made in; null for a zone's.
    pub account_id: Nullable<String>,
    /// Where events are posted to.
    pub url: String,
    /// The types of events, or `*` for all.
    pub events: Vec<String>,
    /// Your own description.
    pub description: Nullable<String>,
    /// Whether it is told of events.
    pub enabled: bool,
    /// Why the service disabled it.
    pub disabled_reason: Nullable<String>,
    /// When it was made.
    pub created_at: DateTime,
    /// When it last changed.
    pub updated_at: DateTime,
    /// What verifies the signatures (Standard Webhooks). Only the answer that makes the webhook has it.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl From<Webhook> for WebhookDto {
    fn from(webhook: Webhook) -> Self {
        let Webhook { id, scope, url, events, description, enabled, disabled_reason, created_at, updated_at } = webhook;
        let (zone_id, account_id) = match scope {
            Scope::Zone(id) => (Some(id.to_string()), None),
            Scope::Account(id) => (None, Some(id.to_string())),
        };
        Self {
            id: Uuid(id.to_string()),
            zone_id: Nullable(zone_id),
            account_id: Nullable(account_id),
            url,
            events,
            description: Nullable(description),
            enabled,
            disabled_reason: Nullable(disabled_reason),
            created_at: DateTime(created_at.rfc3339()),
            updated_at: DateTime(updated_at.rfc3339()),
            secret: None,
        }
    }
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// Another attempt comes.
    Pending,
    /// The receiver answered with a status 2xx.
    Delivered,
    /// Given up.
    Failed,
}

impl From<webhook::DeliveryStatus> for DeliveryStatus {
    fn from(status: webhook::DeliveryStatus) -> Self {
        match status {
            webhook::DeliveryStatus::Pending => Self::Pending,
            webhook::DeliveryStatus::Delivered => Self::Delivered,
            webhook::DeliveryStatus::Failed => Self::Failed,
        }
    }
}

/// What a webhook is told, and how that goes.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Delivery")]
pub struct DeliveryDto {
    /// What the receiver gets as `webhook-id`: the same in every attempt.
    pub id: String,
    /// The type of the event; `ping` for one that was asked for.
    pub event: String,
    /// When the event occurred.
    pub occurred_at: DateTime,
    /// How it stands.
    pub status: DeliveryStatus,
    /// Attempts that ended.
    pub attempts: u32,
    /// The HTTP status of the last answer; null if there was none.
    pub response_status: Nullable<u16>,
    /// When the next attempt is due; null if there is none.
    pub next_attempt_at: Nullable<DateTime>,
}

impl From<Delivery> for DeliveryDto {
    fn from(delivery: Delivery) -> Self {
        let Delivery { id, event, occurred_at, status, attempts, response_status, next_attempt_at } = delivery;
        Self {
            id,
            event,
            occurred_at: DateTime(occurred_at.rfc3339()),
            status: status.into(),
            attempts,
            response_status: Nullable(response_status),
            next_attempt_at: Nullable(next_attempt_at.map(|at| DateTime(at.rfc3339()))),
        }
    }
}

envelopes! {
    /// One webhook.
    WebhookResponse(WebhookDto) {}
}
