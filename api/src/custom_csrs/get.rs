//! `GET /custom_csrs/{custom_csr_id}`: one custom CSR. The answer waits until it is no longer pending if the client prefers that.

use std::{marker::PhantomData, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use poem::{
    IntoResponse, Response,
    http::{HeaderMap, HeaderValue, header},
    web::Data,
};
use poem_openapi::{
    ApiResponse, OpenApi, ResponseContent,
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef},
};
use shared::{
    codes::ErrorCode,
    custom_csr::{CustomCsr, Status},
    ids::CustomCsrId,
    issue::{Input, Issue},
};

use super::{
    dto::{CustomCsrResponse, TAG},
    find,
    wait::{self, Prefer, Waited},
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsRead},
    http::{
        accept,
        deadline::Deadline,
        error::ApiError,
        etag::{IfNoneMatch, Tagged},
        failure::{Failure, Operation},
        header::Header,
        path::Path,
        payload::Json,
    },
    state::AppState,
};

/// What GET of one answers.
#[derive(ApiResponse)]
pub enum Found {
    /// The custom CSR as it is now.
    #[oai(status = 200)]
    Found(
        Content,
        /// `wait=N` where `Prefer: wait=N` was followed.
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
}

/// A custom CSR, or its CSR alone.
#[derive(ResponseContent)]
#[expect(clippy::large_enum_variant, reason = "each is made for one answer, nearly always the large one")]
pub enum Content {
    /// The custom CSR.
    Json(Json<CustomCsrResponse>),
    /// The CSR in PEM.
    Pem(File<Pem>),
    /// The CSR in DER.
    Der(File<Der>),
}

/// A form in which a CSR is sent alone.
pub trait Form: Send + 'static {
    /// Its media type.
    const MEDIA_TYPE: &'static str;
    /// Its format in the document.
    const FORMAT: Option<&'static str>;
}

/// PEM (RFC 7468).
pub struct Pem;

impl Form for Pem {
    const MEDIA_TYPE: &'static str = "application/x-pem-file";
    const FORMAT: Option<&'static str> = None;
}

/// DER (RFC 5967).
pub struct Der;

impl Form for Der {
    const MEDIA_TYPE: &'static str = "application/pkcs10";
    const FORMAT: Option<&'static str> = Some("binary");
}

/// The bytes of a CSR in one form.
pub struct File<F>(Vec<u8>, PhantomData<F>);

impl<F: Form> Payload for File<F> {
    const CONTENT_TYPE: &'static str = F::MEDIA_TYPE;

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema { format: F::FORMAT, ..MetaSchema::new("string") }))
    }
}

impl<F: Form> IntoResponse for File<F> {
    fn into_response(self) -> Response {
        let mut response = Response::from(self.0);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(F::MEDIA_TYPE));
        response
    }
}

/// What the client wants of a custom CSR.
fn content(csr: CustomCsr, headers: &HeaderMap) -> Result<Content, ApiError> {
    let media_type = accept::choose(headers, &["application/json", Pem::MEDIA_TYPE, Der::MEDIA_TYPE]);
    if media_type == "application/json" {
        return Ok(Content::Json(Json(CustomCsrResponse::new(csr.into(), Vec::new()))));
    }
    let Some(pem) = csr.csr_pem else {
        return Err(no_csr_yet(csr.status).into());
    };
    if media_type == Pem::MEDIA_TYPE {
        return Ok(Content::Pem(File(pem.into_bytes(), PhantomData)));
    }
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(base64).map_err(|_| ErrorCode::Internal)?;
    Ok(Content::Der(File(der, PhantomData)))
}

/// 1469, with what to do.
#[must_use]
pub fn no_csr_yet(status: Status) -> Issue {
    let reason = match status {
        Status::Failed => "its key could not be made, so rekey the custom CSR",
        Status::Pending | Status::Active => "it is still pending, so ask again, with `Prefer: wait=30`",
    };
    Issue::of(ErrorCode::CsrNotMade, Input::Header("Accept")).because(reason)
}

/// The operation.
pub struct Get;

impl Operation for Get {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1401, 1402, 1418."),
        (403, "No access: 1404."),
        (404, "No such custom CSR in this scope (1419), or no such route (7000)."),
        (406, "A file was asked for, and there is no CSR yet: 1469."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Get {
    /// Get a custom CSR
    ///
    /// With `Accept: application/x-pem-file` or `application/pkcs10`, the CSR alone, once there is one.
    #[oai(path = "/custom_csrs/:custom_csr_id", method = "get", operation_id = "custom-csrs-get")]
    async fn get(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
        #[oai(name = "Prefer")] Header(prefer): Header<Prefer>,
        #[oai(name = "If-None-Match")] Header(known): Header<IfNoneMatch>,
        headers: &HeaderMap,
    ) -> Result<Tagged<Found>, Failure<Get>> {
        let (state, deadline) = (state.0, Deadline::default());
        let (scope, id) = (access.scope(CustomCsrsRead)?, id.id()?);
        let Some(secs) = prefer.secs() else {
            let csr = find::custom_csr(state, deadline, scope, id).await?;
            return Ok(Tagged::unless(&known, Found::Found(content(csr, headers)?, None)).await?);
        };
        let changes = state.store.signals().changes_of(id);
        let csr = find::custom_csr(state, deadline, scope, id).await?;
        let Waited { seen, applied_secs } = wait::until_not_pending(state, csr, changes, access.subject(), secs, deadline).await;
        let csr = seen.ok_or(ErrorCode::CustomCsrNotFound)?;
        Ok(Tagged::unless(&known, Found::Found(content(csr, headers)?, applied_secs.map(wait::applied))).await?)
    }
}
