//! `GET /custom_certificates/{custom_certificate_id}`: one custom certificate.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::OpenApi;
use shared::ids::CustomCertificateId;

use super::{
    dto::{CustomCertificateResponse, TAG},
    find::custom_certificate,
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCertificatesRead},
    http::{
        deadline::Deadline,
        etag::{IfNoneMatch, Tagged},
        failure::{Failure, Operation},
        header::Header,
        path::Path,
        payload::Json,
        worded::AccountWords,
    },
    state::AppState,
};

/// The operation.
pub struct Get;

impl Operation for Get {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1480."),
        (403, "No access: 1404."),
        (404, "No such custom certificate in this zone, or for a custom CSR of this account (1481), or no such route (7000)."),
    ];
}

impl AccountWords for Get {
    const SUMMARY: &'static str = "Get a custom certificate that uses a custom CSR of the account";
    const DESCRIPTION: Option<&'static str> = Some("With its chain. `zone_id` says in which zone it lies.");
}

#[OpenApi(tag = "TAG")]
impl Get {
    /// Get a custom certificate
    ///
    /// With its chain, which lists leave out.
    #[oai(path = "/custom_certificates/:custom_certificate_id", method = "get", operation_id = "custom-certificates-get")]
    async fn get(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_certificate_id")] id: Path<CustomCertificateId>,
        #[oai(name = "If-None-Match")] Header(known): Header<IfNoneMatch>,
    ) -> Result<Tagged<Json<CustomCertificateResponse>>, Failure<Get>> {
        let (scope, id) = (access.scope(CustomCertificatesRead)?, id.id()?);
        let certificate = custom_certificate(&state, Deadline::default(), scope, id).await?;
        Ok(Tagged::unless(&known, CustomCertificateResponse::of(certificate, state.clock.now(), &[])).await?)
    }
}
