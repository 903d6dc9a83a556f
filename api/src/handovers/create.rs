//! `POST /custom_csrs/{custom_csr_id}/handover`: makes a hand-over link.

use std::sync::Arc;

use poem::{
    Request,
    http::{header, uri::Authority},
    web::Data,
};
use poem_openapi::{ApiResponse, Object, OpenApi};
use shared::{
    bodies::{handover::HandoverRequest, undecodable::explained},
    codes::ErrorCode,
    handover::{self, NewHandover, Secret},
    ids::{CustomCsrId, HandoverId},
    issue::Issue,
    storage::HandoverCreation,
};

use super::dto::{HandoverLinkDto, HandoverLinkResponse, TAG};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsWrite},
    custom_csrs::not_active::not_active,
    grants::revoked,
    http::{
        body::OptionalBody,
        deadline::Deadline,
        envelope::Message,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
        types::{DateTime, Nullable, Uuid},
    },
    state::AppState,
};

/// How long the link lasts, and what its page says. Both may be left out, and so may the body.
#[derive(Debug, Object)]
#[oai(rename = "HandoverRequest")]
pub struct HandoverInput {
    /// Seconds from now; a week if absent.
    #[oai(nullable, validator(minimum(value = "3600"), maximum(value = "2592000")))]
    pub expires_in: Option<u32>,
    /// A note for whoever opens the page, as plain text.
    #[oai(nullable, validator(max_length = 500, pattern = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"))]
    pub note: Option<String>,
}

/// The responses.
#[derive(ApiResponse)]
pub enum Made {
    /// It was made.
    #[oai(status = 201)]
    Made(Json<HandoverLinkResponse>),
}

/// The operation.
pub struct Create;

impl Operation for Create {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1400 to 1402, 1418, 1462, 1495, 1496."),
        (403, "No access: 1404."),
        (404, "No such custom CSR in this zone (1419), or no such route (7000)."),
        (409, "The custom CSR is not active (1474), or has as many open links as it may have (1499)."),
        (415, "The body is compressed: 1468."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Create {
    /// Make a hand-over link
    ///
    /// Whoever has the link sees the names and the CSR, and can bring one certificate for it, without a token; that ends the link.
    /// Only this answer has the `url`.
    #[oai(path = "/custom_csrs/:custom_csr_id/handover", method = "post", operation_id = "handovers-create")]
    async fn create(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
        body: OptionalBody<HandoverInput>,
        request: &Request,
    ) -> Result<Made, Failure<Create>> {
        let (state, deadline, now) = (state.0, Deadline::default(), state.clock.now());
        let (scope, custom_csr_id) = (access.scope(CustomCsrsWrite)?, id.id()?);
        let text = body.json()?;
        let parsed = HandoverRequest::parse(text).map_err(|issues| explained(text.unwrap_or_default(), issues));
        let (HandoverRequest { expires_in, note }, warnings) = parsed?;
        let secret = Secret::generate().ok_or(ErrorCode::Internal)?;
        let url = handover::url(&origin(state, request)?, &secret);
        let new = NewHandover { id: HandoverId::new(now), custom_csr_id, replaces: None, secret, note, expires_at: now.plus(expires_in) };
        match deadline.write(state.store.create_handover(scope, &new, access.actor(), now)).await? {
            HandoverCreation::Created => {}
            HandoverCreation::NotFound => return Err(ErrorCode::CustomCsrNotFound.into()),
            HandoverCreation::NotGranted => return Err(Issue::new(ErrorCode::AccessNotGranted).hinting(revoked("zone")).into()),
            HandoverCreation::NotActive(status) => return Err(not_active(status).into()),
            HandoverCreation::TooMany => return Err(ErrorCode::TooManyHandovers.into()),
        }
        let made = HandoverLinkDto {
            id: Uuid(new.id.to_string()),
            url,
            expires_at: DateTime(new.expires_at.rfc3339()),
            note: Nullable(new.note),
            created_at: DateTime(now.rfc3339()),
        };
        Ok(Made::Made(Json(HandoverLinkResponse::new(made, warnings.iter().map(Message::from).collect()))))
    }
}

/// Scheme and host of the links: those of `--public-url`, or those of this request.
fn origin(state: &AppState, request: &Request) -> Result<String, ErrorCode> {
    if let Some(url) = &state.handovers.public_url {
        return Ok(url.clone());
    }
    let host = request.header(header::HOST).or_else(|| request.uri().authority().map(Authority::as_str));
    Ok(format!("{}://{}", state.trusted_proxies.scheme(request), host.ok_or(ErrorCode::Internal)?))
}
