//! Hand-over links on the wire.

use poem_openapi::{Object, registry::MetaSchema};
use serde::Serialize;
use shared::{codes::ErrorCode, handover::Handover, ids::HandoverId};

use crate::http::{
    envelope::{Message, envelopes},
    mounted::Tag,
    path::PathId,
    types::{DateTime, Nullable, Uuid},
};

/// The tag of the operations.
pub const TAG: Tag = Tag("handovers");

impl PathId for HandoverId {
    const INVALID: ErrorCode = ErrorCode::HandoverIdInvalid;
    const FORM: &'static str = "The ID of a hand-over link is a UUID: 36 characters, as in 0190163d-8694-7739-aea5-966c26f8ad91.";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn schema() -> MetaSchema {
        MetaSchema { description: Some("The hand-over link's ID."), ..MetaSchema::new_with_format("string", "uuid") }
    }
}

/// A hand-over link that was just made.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "HandoverLink")]
pub struct HandoverLinkDto {
    /// Its ID.
    pub id: Uuid,
    /// The link. Treat it like a password: only this answer has it.
    pub url: String,
    /// When it expires.
    pub expires_at: DateTime,
    /// The note on its page.
    pub note: Nullable<String>,
    /// When it was made.
    pub created_at: DateTime,
}

/// A hand-over link, without its secret.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Handover")]
pub struct HandoverDto {
    /// Its ID.
    pub id: Uuid,
    /// When it expires.
    pub expires_at: DateTime,
    /// The note on its page.
    pub note: Nullable<String>,
    /// When it was made.
    pub created_at: DateTime,
    /// When it was first opened.
    pub opened_at: Nullable<DateTime>,
    /// When a certificate came through it, which ended it.
    pub used_at: Nullable<DateTime>,
    /// When it was revoked.
    pub revoked_at: Nullable<DateTime>,
}

impl From<Handover> for HandoverDto {
    fn from(handover: Handover) -> Self {
        let Handover { id, custom_csr_id: _, replaces: _, note, created_at, expires_at, opened_at, used_at, revoked_at } = handover;
        let time = |at: Option<shared::clock::Timestamp>| Nullable(at.map(|at| DateTime(at.rfc3339())));
        Self {
            id: Uuid(id.to_string()),
            expires_at: DateTime(expires_at.rfc3339()),
            note: Nullable(note),
            created_at: DateTime(created_at.rfc3339()),
            opened_at: time(opened_at),
            used_at: time(used_at),
            revoked_at: time(revoked_at),
        }
    }
}

/// The ID of the link that was revoked.
#[derive(Debug, Object, Serialize)]
pub struct RevokedHandover {
    /// Its ID.
    pub id: Uuid,
}

envelopes! {
    /// A hand-over link that was just made.
    HandoverLinkResponse(HandoverLinkDto) {}
    /// The hand-over links of a custom CSR.
    HandoverListResponse(Vec<HandoverDto>) {}
    /// The link that was revoked.
    RevokedHandoverResponse(RevokedHandover) {}
}
