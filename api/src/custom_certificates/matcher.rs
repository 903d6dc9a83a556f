//! Matches the certificates of an upload or a renewal to the custom CSR whose private key they are for.

use std::sync::Arc;

use shared::{
    bodies::upload::Upload,
    clock::Timestamp,
    codes::ErrorCode,
    custom_certificate::BundleMethod,
    custom_csr::Status,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    issue::{Issue, Warning},
    storage::{NewChain, UsableCsr},
    x509::{chain::PemChain, judge::Expected},
};

use super::checking;
use crate::{
    custom_csrs::not_active::not_active,
    http::{deadline::Deadline, error::ApiError},
    state::AppState,
};

/// Matches the certificates of one request.
pub struct Matcher<'a> {
    state: &'a Arc<AppState>,
    deadline: Deadline,
    now: Timestamp,
}

impl<'a> Matcher<'a> {
    /// For a request of this time, until this deadline.
    #[must_use]
    pub const fn new(state: &'a Arc<AppState>, deadline: Deadline, now: Timestamp) -> Self {
        Self { state, deadline, now }
    }

    /// The custom CSR of an ID that a zone may use, for a new custom certificate or for the present one.
    ///
    /// # Errors
    ///
    /// 1430 if it is not an ID.
    pub async fn find_csr(&self, zone: &Scope, id: &str, present: Option<CustomCertificateId>) -> Result<Option<UsableCsr>, ApiError> {
        let id = CustomCsrId::parse(id).ok_or_else(|| Issue::at(ErrorCode::CertificateCsrIdInvalid, "/custom_csr_id"))?;
        Ok(self.deadline.read(self.state.store.find_usable_csr(zone, id, present)).await?)
    }

    /// The custom CSR with the key of one of the certificates.
    ///
    /// # Errors
    ///
    /// 1472 if there is none.
    pub async fn find_csr_by_key(&self, zone: &Scope, sent: &PemChain) -> Result<UsableCsr, ApiError> {
        for key in sent.leaf_keys() {
            if let Some(csr) = self.deadline.read(self.state.store.find_usable_csr_by_key(zone, &key)).await? {
                return Ok(csr);
            }
        }
        Err(Issue::at(ErrorCode::NoCsrForKey, "/custom_csr_id").into())
    }

    /// The certificates of an upload.
    ///
    /// # Errors
    ///
    /// Those of [`PemChain::parse`], and 1427 if there is no certificate.
    pub async fn read(&self, upload: &Upload) -> Result<PemChain, ApiError> {
        let text = upload.certificate.clone().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Issue::at(ErrorCode::CertificateMissing, "/certificate").beside(&upload.warnings))?;
        self.work(move || PemChain::parse(&text)?.bounded()).await
    }

    /// Checks the certificates of an upload against the custom CSR that they are to be for.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub async fn check(
        &self,
        csr: UsableCsr,
        sent: PemChain,
        method: BundleMethod,
        upload: &Upload,
    ) -> Result<(NewChain, Vec<Warning>), ApiError> {
        let (state, now) = (Arc::clone(self.state), self.now);
        let (chain, mut warnings) = self.work(move || check(&state, &csr, &sent, method, now)).await?;
        warnings.extend(upload.warnings.iter().cloned());
        warnings.sort_by_key(|warning| warning.code);
        Ok((chain, warnings))
    }

    /// Work that takes long, or 1471 if it is not done in time.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, Issue> + Send + 'static) -> Result<T, ApiError> {
        let done = self.deadline.work(checking::run(work)).await;
        Ok(done.ok_or_else(|| Issue::new(ErrorCode::NotReady).because("too many certificates are being checked"))??)
    }
}

fn check(
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
