//! The webhook: whom a zone or an account has told of events, and what was told.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    ids::{Scope, WebhookId},
};

/// How many webhooks one zone or account may have.
pub const WEBHOOKS_MAX: u32 = 10;
/// How many deliveries of a webhook are shown, and kept once they ended.
pub const DELIVERIES_SHOWN: u32 = 100;
/// After so many deliveries in a row that were given up, a webhook is disabled.
pub const GIVEN_UP_MAX: u32 = 10;
/// The pauses after the first attempt, the second and so on. After the attempt beyond the last, a delivery is given up.
pub const PAUSES: [Duration; 8] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(8),
    Duration::from_hours(12),
];

/// A webhook as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its ID.
    pub id: WebhookId,
    /// The zone or account.
    pub scope: Scope,
    /// Where events are posted to.
    pub url: String,
    /// The types of events, or `*` for all.
    pub events: Vec<String>,
    /// The tenant's own description.
    pub description: Option<String>,
    /// Whether it is told of events.
    pub enabled: bool,
    /// Why the service disabled it.
    pub disabled_reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// There is another attempt to come.
    Pending,
    /// The receiver took it.
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryStatus {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// Reads the table's word, or returns `None` if there is no such word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::Failed].into_iter().find(|status| status.as_str() == word)
    }
}

/// What a webhook is told, and how that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its ID, which the receiver gets as `webhook-id`.
    pub id: String,
    /// The type of the event.
    pub event: String,
    /// When the event occurred.
    pub occurred_at: Timestamp,
    /// How it stands.
    pub status: DeliveryStatus,
    /// Attempts that ended.
    pub attempts: u32,
    /// The status of the last answer, if there was one.
    pub response_status: Option<u16>,
    /// When the next attempt is due, while it is pending.
    pub next_attempt_at: Option<Timestamp>,
}
