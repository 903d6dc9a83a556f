//! `PUT /renewal_policy`: sets the renewal policy of a zone.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use shared::bodies::{renewal::RenewalPolicyBody, undecodable::explained};

use super::dto::{RenewalKey, RenewalPolicyResponse, TAG};
use crate::{
    auth::{access::Access, caller::Permission::CustomCertificatesWrite},
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

/// How a zone's certificates are to be renewed. Unknown members are ignored, with warning 2012.
#[derive(Debug, Object)]
#[oai(rename = "RenewalPolicyRequest")]
pub struct RenewalPolicyInput {
    /// Which key renewed certificates have: `reuse` or `new`, in upper or lower case.
    pub key: RenewalKey,
    /// The part of a certificate's lifetime that is left when it is renewed; a third if absent or null.
    #[oai(nullable, validator(minimum(value = "0", exclusive = true), maximum(value = "1", exclusive = true)))]
    pub at: Option<f64>,
}

/// The operation.
pub struct Put;

impl Operation for Put {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1400 to 1402, 1510, 1511. Several faults are reported together."),
        (403, "No access: 1404."),
        (404, "No such route: 7000."),
        (415, "The body is compressed: 1468."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Put {
    /// Set the renewal policy
    ///
    /// When that part of a certificate's lifetime is left, or its issuer wants it renewed, there is a CSR to sign: a new one, or that of the key
    /// that it has. The event `custom_certificate.renewal_due` has it, with a hand-over link. A renewed certificate that comes through the link
    /// replaces the old one, and so does one that is sent by PATCH.
    #[oai(path = "/renewal_policy", method = "put", operation_id = "renewal-policies-set")]
    async fn put(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        body: Body<RenewalPolicyInput>,
    ) -> Result<Json<RenewalPolicyResponse>, Failure<Put>> {
        let (state, deadline) = (state.0, Deadline::default());
        let zone = access.scope(CustomCertificatesWrite)?;
        let grant = deadline.read(state.store.find_scope(zone)).await?;
        if !grant.as_ref().is_some_and(|grant| grant.granted) {
            return Err(grants::not_granted(zone, grant.as_ref()).into());
        }
        let json = body.json()?;
        let asked = RenewalPolicyBody::parse(json).map_err(|issues| ApiError::new(explained(json, issues)))?;
        let putting = state.store.put_renewal_policy(zone, asked.key, asked.at, access.actor(), state.clock.now());
        let policy = deadline.write(putting).await?;
        Ok(Json(RenewalPolicyResponse::new(policy.into(), asked.warnings.iter().map(Message::from).collect())))
    }
}
