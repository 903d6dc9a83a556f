//! Custom certificates: what comes back from the CA, judged and kept with the custom CSR that it is for. They lie in zones; an account sees
//! those that use its custom CSRs.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{ApiResponse, OpenApi, param::Path};
use shared::{
    bodies::upload::Upload,
    clock::Timestamp,
    codes::ErrorCode,
    custom_certificate::{BundleMethod, CertificateType, CustomCertificate},
    custom_csr::Status,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    issue::{Issue, Warning},
    storage::{CertificateChange, CertificateRefusal, MAX_CERTIFICATES_OF_CSR, NewCertificate, NewChain, Replacement, UsableCsr},
    x509::certificate::{Expected, PemChain},
};

use super::statuses::{ListErrors, OneCertificateErrors, ReplaceErrors, UploadErrors};
use crate::{
    auth::Permission::{CustomCertificatesRead, CustomCertificatesWrite},
    auth::access::Access,
    dto::{
        CustomCertificateDto, CustomCertificateEditInput, CustomCertificateInput, CustomCertificateListResponse, CustomCertificateResponse,
        DeletedCustomCertificate, DeletedCustomCertificateResponse, ResultInfo,
    },
    http::body::Body,
    http::deadline::Deadline,
    http::envelope::{ApiError, Failure, Message},
    http::payload::Json,
    http::query::Query,
    judging,
    state::AppState,
};

/// What an upload answers.
#[derive(ApiResponse)]
pub enum Uploaded {
    /// With `dry_run=true`: every check passed, and nothing was stored; the ID is not kept.
    #[oai(status = 200)]
    Checked(Json<CustomCertificateResponse>),
    /// Stored, and active.
    #[oai(status = 201)]
    Stored(
        Json<CustomCertificateResponse>,
        /// Where to read it: an absolute path.
        #[oai(header = "Location")]
        String,
    ),
}

/// The operations of one request.
struct CustomCertificates<'a> {
    state: &'a Arc<AppState>,
    deadline: Deadline,
    now: Timestamp,
}

impl<'a> CustomCertificates<'a> {
    fn new(state: &'a Arc<AppState>) -> Self {
        Self { state, deadline: Deadline::default(), now: state.clock.now() }
    }

    async fn create(&self, access: &Access, body: &Body<CustomCertificateInput>, query: &Query) -> Result<Uploaded, ApiError> {
        let zone = access.scope(CustomCertificatesWrite)?;
        self.check_grant(zone).await?;
        let upload = Upload::parse(body.json()?)?;
        let is_dry_run = query.flag("dry_run")?;
        check_private_key(&upload)?;
        let bundle_method = upload.bundle_method.unwrap_or(BundleMethod::Ubiquitous);
        let named = match &upload.custom_csr_id {
            Some(id) => Some(self.find_csr(zone, id, None).await?.ok_or_else(named_csr_not_found)?),
            None => None,
        };
        let sent = self.read(&upload).await?;
        let csr = match named {
            Some(csr) => csr,
            None => self.find_csr_by_key(zone, &sent).await?,
        };
        let (chain, warnings) = self.judge(csr, sent, bundle_method, &upload).await?;
        let new = NewCertificate {
            id: CustomCertificateId::new(self.now),
            zone: zone.clone(),
            chain,
            bundle_method,
            certificate_type: upload.certificate_type.unwrap_or(CertificateType::SniCustom),
            priority: upload.priority.unwrap_or_default(),
        };
        let refusal = if is_dry_run {
            self.deadline.read(self.state.store.check_certificate(&new)).await?
        } else {
            self.deadline.write(self.state.store.accept_certificate(&new, access.actor(), self.now)).await?
        };
        if let Some(refusal) = refusal {
            return Err(refused(refusal, named_csr_not_found));
        }
        let location = format!("{}/{}", access.path().trim_end_matches('/'), new.id);
        let response = self.response(made(new, self.now), &warnings);
        Ok(if is_dry_run { Uploaded::Checked(response) } else { Uploaded::Stored(response, location) })
    }

    async fn edit(
        &self,
        access: &Access,
        id: &str,
        body: &Body<CustomCertificateEditInput>,
        query: &Query,
    ) -> Result<Json<CustomCertificateResponse>, ApiError> {
        let (zone, id) = (access.scope(CustomCertificatesWrite)?, parse_id(id)?);
        let present = self.find(zone, id).await?;
        let upload = Upload::parse(body.json()?)?;
        let is_dry_run = query.flag("dry_run")?;
        check_private_key(&upload)?;
        let csr_not_found = if upload.custom_csr_id.is_some() { named_csr_not_found } else { used_csr_not_found };
        let (chain, warnings) = self.judge_replacement(zone, &present, &upload, csr_not_found).await?;
        let Upload { bundle_method, certificate_type, priority, .. } = upload;
        let change = CertificateChange { chain, bundle_method, certificate_type, priority };
        if change.chain.is_none() && bundle_method.is_none() && certificate_type.is_none() && priority.is_none() {
            return Ok(self.response(present, &warnings));
        }
        if is_dry_run {
            if let Some(chain) = &change.chain
                && let Some(refusal) = self.deadline.read(self.state.store.check_replacement(zone, id, chain)).await?
            {
                return Err(refused(refusal, csr_not_found));
            }
            return Ok(self.response(changed(present, change, self.now), &warnings));
        }
        let replacing = self.state.store.replace_certificate(zone, id, &change, access.actor(), self.now);
        match self.deadline.write(replacing).await? {
            Replacement::Replaced(replaced) => Ok(self.response(*replaced, &warnings)),
            Replacement::NotFound => Err(ErrorCode::CustomCertificateNotFound.into()),
            Replacement::Refused(refusal) => Err(refused(refusal, csr_not_found)),
        }
    }

    /// The chain of a renewal, if there is one: for the custom CSR that it names, or for the present one.
    async fn judge_replacement(
        &self,
        zone: &Scope,
        present: &CustomCertificate,
        upload: &Upload,
        csr_not_found: fn() -> ApiError,
    ) -> Result<(Option<NewChain>, Vec<Warning>), ApiError> {
        let present_csr = present.custom_csr_id.to_string();
        let named = upload.custom_csr_id.as_deref().filter(|id| !id.eq_ignore_ascii_case(&present_csr));
        if named.is_none() && upload.certificate.is_none() {
            return Ok((None, upload.warnings.clone()));
        }
        let csr = self.find_csr(zone, named.unwrap_or(&present_csr), Some(present.id)).await?.ok_or_else(csr_not_found)?;
        let sent = self.read(upload).await?;
        let (chain, warnings) = self.judge(csr, sent, upload.bundle_method.unwrap_or(present.bundle_method), upload).await?;
        Ok((Some(chain), warnings))
    }

    async fn list(&self, access: &Access, query: &Query) -> Result<Json<CustomCertificateListResponse>, ApiError> {
        let scope = access.scope(CustomCertificatesRead)?;
        let query = query.certificates(self.now)?;
        let page = self.deadline.read(self.state.store.list_certificates(scope, &query)).await?;
        let info = ResultInfo::new(query.page, query.per_page, page.rows.len(), page.total);
        let rows = page.rows.into_iter().map(|row| CustomCertificateDto::listed(row, self.now)).collect();
        Ok(Json(CustomCertificateListResponse::new(rows, Vec::new(), info)))
    }

    async fn get(&self, access: &Access, id: &str) -> Result<Json<CustomCertificateResponse>, ApiError> {
        let (scope, id) = (access.scope(CustomCertificatesRead)?, parse_id(id)?);
        Ok(self.response(self.find(scope, id).await?, &[]))
    }

    async fn delete(&self, access: &Access, id: &str) -> Result<Json<DeletedCustomCertificateResponse>, ApiError> {
        let (scope, id) = (access.scope(CustomCertificatesWrite)?, parse_id(id)?);
        if !self.deadline.write(self.state.store.delete_certificate(scope, id, access.actor(), self.now)).await? {
            return Err(ErrorCode::CustomCertificateNotFound.into());
        }
        Ok(Json(DeletedCustomCertificateResponse::new(DeletedCustomCertificate { id: id.to_string() }, Vec::new())))
    }

    async fn check_grant(&self, zone: &Scope) -> Result<(), ApiError> {
        let grant = self.deadline.read(self.state.store.find_scope(zone)).await?;
        if grant.is_some_and(|grant| grant.granted) { Ok(()) } else { Err(ErrorCode::AccessNotGranted.into()) }
    }

    async fn find(&self, scope: &Scope, id: CustomCertificateId) -> Result<CustomCertificate, ApiError> {
        let found = self.deadline.read(self.state.store.find_certificate(scope, id)).await?;
        found.ok_or_else(|| ErrorCode::CustomCertificateNotFound.into())
    }

    async fn find_csr(&self, zone: &Scope, id: &str, present: Option<CustomCertificateId>) -> Result<Option<UsableCsr>, ApiError> {
        let id = CustomCsrId::parse(id).ok_or_else(|| Issue::at(ErrorCode::CertificateCsrIdInvalid, "/custom_csr_id"))?;
        Ok(self.deadline.read(self.state.store.find_usable_csr(zone, id, present)).await?)
    }

    /// The custom CSR with the key of one of the certificates.
    async fn find_csr_by_key(&self, zone: &Scope, sent: &PemChain) -> Result<UsableCsr, ApiError> {
        for key in sent.leaf_keys() {
            if let Some(csr) = self.deadline.read(self.state.store.find_usable_csr_by_key(zone, &key)).await? {
                return Ok(csr);
            }
        }
        Err(Issue::at(ErrorCode::NoCsrForKey, "/custom_csr_id").into())
    }

    /// The certificates of an upload.
    async fn read(&self, upload: &Upload) -> Result<PemChain, ApiError> {
        let text = upload.certificate.clone().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Issue::at(ErrorCode::CertificateMissing, "/certificate"))?;
        self.work(move || PemChain::parse(&text)?.bounded()).await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, Issue> + Send + 'static) -> Result<T, ApiError> {
        let done = self.deadline.work(judging::judge(work)).await;
        Ok(done.ok_or_else(|| Issue::new(ErrorCode::NotReady).because("too many certificates are being checked"))??)
    }

    /// The certificates of an upload against the custom CSR that they are to be for.
    async fn judge(
        &self,
        csr: UsableCsr,
        sent: PemChain,
        method: BundleMethod,
        upload: &Upload,
    ) -> Result<(NewChain, Vec<Warning>), ApiError> {
        let (state, now) = (Arc::clone(self.state), self.now);
        let (chain, mut warnings) = self.work(move || judge(&state, &csr, &sent, method, now)).await?;
        warnings.extend(upload.warnings.iter().cloned());
        Ok((chain, warnings))
    }

    fn response(&self, certificate: CustomCertificate, warnings: &[Warning]) -> Json<CustomCertificateResponse> {
        let messages = warnings.iter().map(Message::from).collect();
        Json(CustomCertificateResponse::new(CustomCertificateDto::new(certificate, self.now), messages))
    }
}

fn judge(
    state: &AppState,
    csr: &UsableCsr,
    sent: &PemChain,
    method: BundleMethod,
    now: Timestamp,
) -> Result<(NewChain, Vec<Warning>), Issue> {
    let (Status::Active, Some(spki_sha256)) = (csr.status, csr.spki_sha256) else { return Err(not_active(csr.status)) };
    let expected = Expected { spki_sha256: &spki_sha256, sans: &csr.sans };
    let (chain, warnings) = sent.judge(expected, state.trust_anchors.as_ref(), method, now)?;
    Ok((NewChain { custom_csr_id: csr.id, spki_sha256, chain }, warnings))
}

fn made(new: NewCertificate, now: Timestamp) -> CustomCertificate {
    let NewCertificate { id, zone, chain, bundle_method, certificate_type, priority } = new;
    let NewChain { custom_csr_id, spki_sha256: _, chain } = chain;
    CustomCertificate { id, zone, custom_csr_id, chain, bundle_method, certificate_type, priority, uploaded_at: now, modified_at: now }
}

/// What a change would make of a certificate.
fn changed(present: CustomCertificate, change: CertificateChange, now: Timestamp) -> CustomCertificate {
    let CertificateChange { chain, bundle_method, certificate_type, priority } = change;
    let (custom_csr_id, chain) = chain.map_or((present.custom_csr_id, present.chain), |new| (new.custom_csr_id, new.chain));
    CustomCertificate {
        custom_csr_id,
        chain,
        bundle_method: bundle_method.unwrap_or(present.bundle_method),
        certificate_type: certificate_type.unwrap_or(present.certificate_type),
        priority: priority.unwrap_or(present.priority),
        modified_at: now,
        ..present
    }
}

fn parse_id(id: &str) -> Result<CustomCertificateId, ErrorCode> {
    CustomCertificateId::parse(id).ok_or(ErrorCode::CustomCertificateIdInvalid)
}

fn check_private_key(upload: &Upload) -> Result<(), Issue> {
    upload.private_key.clone().map_or(Ok(()), Err)
}

fn named_csr_not_found() -> ApiError {
    let reason = "of custom_csr_id was not found in this zone or its account";
    Issue::at(ErrorCode::CertificateCsrNotFound, "/custom_csr_id").because(reason).into()
}

/// 1431 where `custom_csr_id` was not sent.
fn used_csr_not_found() -> ApiError {
    let reason = "that this custom certificate uses is none that its zone may use now: it belongs to an account that is not granted, or \
                  that is not the zone's. Grant that, or send the custom_csr_id of another one with a certificate that was issued for it";
    Issue::at(ErrorCode::CertificateCsrNotFound, "/certificate").because(reason).into()
}

fn refused(refusal: CertificateRefusal, csr_not_found: fn() -> ApiError) -> ApiError {
    match refusal {
        CertificateRefusal::NotGranted => ErrorCode::AccessNotGranted.into(),
        CertificateRefusal::CsrGone => csr_not_found(),
        CertificateRefusal::Stored(id) => Issue::at(ErrorCode::CertificateStored, "/certificate").because(id.to_string()).into(),
        CertificateRefusal::CsrFull => {
            Issue::at(ErrorCode::TooManyCertificates, "/custom_csr_id").because(MAX_CERTIFICATES_OF_CSR.to_string()).into()
        }
    }
}

/// 1474, with what to do.
#[must_use]
pub fn not_active(status: Status) -> Issue {
    Issue::new(ErrorCode::CustomCsrNotActive).because(match status {
        Status::Pending => "it is still pending, so read it until its status is active and try again then",
        Status::Active | Status::Failed => "its key could not be made, so rekey it and have the new CSR signed",
    })
}

/// The custom certificates of a zone.
pub struct ZoneCustomCertificates;

#[OpenApi]
impl ZoneCustomCertificates {
    /// Upload a certificate
    ///
    /// Puts the chain right, and matches it to the private key of its custom CSR, which may have 20 custom certificates. The first check that fails is the only error.
    /// While it is not expired, its custom CSR cannot be deleted. With `dry_run=true` nothing is stored.
    #[oai(path = "/zones/:scope_id/custom_certificates", method = "post", operation_id = "zone-custom-certificates-create")]
    async fn create(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "scope_id")] _scope_id: Path<String>,
        body: Body<CustomCertificateInput>,
        query: Query,
    ) -> Result<Uploaded, Failure<UploadErrors>> {
        Ok(CustomCertificates::new(state.0).create(&access, &body, &query).await?)
    }

    /// List custom certificates
    ///
    /// Newest first. Past the last page: an empty array.
    #[oai(path = "/zones/:scope_id/custom_certificates", method = "get", operation_id = "zone-custom-certificates-list")]
    async fn list(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "scope_id")] _scope_id: Path<String>,
        query: Query,
    ) -> Result<Json<CustomCertificateListResponse>, Failure<ListErrors>> {
        Ok(CustomCertificates::new(state.0).list(&access, &query).await?)
    }

    /// Get a custom certificate
    #[oai(
        path = "/zones/:scope_id/custom_certificates/:custom_certificate_id",
        method = "get",
        operation_id = "zone-custom-certificates-get"
    )]
    async fn get(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "scope_id")] _scope_id: Path<String>,
        #[oai(name = "custom_certificate_id")] id: Path<String>,
    ) -> Result<Json<CustomCertificateResponse>, Failure<OneCertificateErrors>> {
        Ok(CustomCertificates::new(state.0).get(&access, &id).await?)
    }

    /// Renew a certificate, or change its settings
    ///
    /// A renewed certificate replaces the old one at once, under the same ID. With `custom_csr_id` it moves to another custom CSR, after a
    /// rekey. Without `certificate` only the settings change. With `dry_run=true` nothing does.
    #[oai(
        path = "/zones/:scope_id/custom_certificates/:custom_certificate_id",
        method = "patch",
        operation_id = "zone-custom-certificates-edit"
    )]
    async fn edit(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "scope_id")] _scope_id: Path<String>,
        #[oai(name = "custom_certificate_id")] id: Path<String>,
        body: Body<CustomCertificateEditInput>,
        query: Query,
    ) -> Result<Json<CustomCertificateResponse>, Failure<ReplaceErrors>> {
        Ok(CustomCertificates::new(state.0).edit(&access, &id, &body, &query).await?)
    }

    /// Delete a custom certificate
    ///
    /// Its custom CSR can then be deleted, unless another certificate uses it.
    #[oai(
        path = "/zones/:scope_id/custom_certificates/:custom_certificate_id",
        method = "delete",
        operation_id = "zone-custom-certificates-delete"
    )]
    async fn delete(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "scope_id")] _scope_id: Path<String>,
        #[oai(name = "custom_certificate_id")] id: Path<String>,
    ) -> Result<Json<DeletedCustomCertificateResponse>, Failure<OneCertificateErrors>> {
        Ok(CustomCertificates::new(state.0).delete(&access, &id).await?)
    }
}

/// The custom certificates that use the custom CSRs of an account, in whatever zone they lie.
pub struct AccountCustomCertificates;

#[OpenApi]
impl AccountCustomCertificates {
    /// List the custom certificates that use the account's custom CSRs
    ///
    /// In whatever zone they lie: `zone_id` names it. Newest first. Past the last page: an empty array.
    #[oai(path = "/accounts/:scope_id/custom_certificates", method = "get", operation_id = "account-custom-certificates-list")]
    async fn list(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "scope_id")] _scope_id: Path<String>,
        query: Query,
    ) -> Result<Json<CustomCertificateListResponse>, Failure<ListErrors>> {
        Ok(CustomCertificates::new(state.0).list(&access, &query).await?)
    }

    /// Get a custom certificate that uses a custom CSR of the account
    #[oai(
        path = "/accounts/:scope_id/custom_certificates/:custom_certificate_id",
        method = "get",
        operation_id = "account-custom-certificates-get"
    )]
    async fn get(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "scope_id")] _scope_id: Path<String>,
        #[oai(name = "custom_certificate_id")] id: Path<String>,
    ) -> Result<Json<CustomCertificateResponse>, Failure<OneCertificateErrors>> {
        Ok(CustomCertificates::new(state.0).get(&access, &id).await?)
    }

    /// Delete a custom certificate that uses a custom CSR of the account
    ///
    /// It is gone from its zone. The custom CSR can then be deleted, unless another certificate uses it.
    #[oai(
        path = "/accounts/:scope_id/custom_certificates/:custom_certificate_id",
        method = "delete",
        operation_id = "account-custom-certificates-delete"
    )]
    async fn delete(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "scope_id")] _scope_id: Path<String>,
        #[oai(name = "custom_certificate_id")] id: Path<String>,
    ) -> Result<Json<DeletedCustomCertificateResponse>, Failure<OneCertificateErrors>> {
        Ok(CustomCertificates::new(state.0).delete(&access, &id).await?)
    }
}
