//! The certificate that comes through a hand-over link.

use std::sync::Arc;

use shared::{
    bodies::upload::Upload,
    clock::Timestamp,
    codes::{ErrorCode, WarningCode},
    custom_certificate::{BundleMethod, CertificateType},
    ids::{CustomCertificateId, Scope},
    issue::{Issue, Warning},
    storage::{CertificateChange, CertificateRefusal, NewCertificate, Replacement},
    x509::{formats::has_private_key, issues::private_key_refused},
};

use super::{form::Form, link::Found};
use crate::{
    custom_certificates::{matcher::Matcher, refused::refused},
    http::{deadline::Deadline, error::ApiError},
    state::AppState,
};

/// A certificate that was stored.
pub struct Stored {
    /// When it expires.
    pub expires: Timestamp,
    /// Why clients may reject it.
    pub warnings: Vec<String>,
}

/// Stores the certificate from the form, and ends the link. It replaces the certificate that the link renews, if there is one. Returns `None` if
/// the link has ended meanwhile.
pub async fn store(state: &Arc<AppState>, deadline: Deadline, found: &Found, form: &Form) -> Result<Option<Stored>, ApiError> {
    if has_private_key(&form.certificate) {
        return Err(private_key_refused().into());
    }
    let now = state.clock.now();
    let present = match found.handover.replaces {
        Some(id) => deadline.read(state.store.find_certificate(&found.scope, id)).await?,
        None => None,
    };
    let zone = present.as_ref().map_or(&found.scope, |present| &present.zone);
    // An account has no certificates of its own.
    let Scope::Zone(_) = zone else { return Err(csr_not_found()) };
    let matcher = Matcher::new(state, deadline, now);
    let present_id = present.as_ref().map(|present| present.id);
    let csr = matcher.find_csr(zone, &found.csr.id.to_string(), present_id).await?.ok_or_else(csr_not_found)?;
    let sent = Upload { certificate: Some(form.certificate.clone()), ..Upload::default() };
    let certificates = matcher.read(&sent).await?;
    let bundle_method = present.as_ref().map_or(BundleMethod::Ubiquitous, |present| present.bundle_method);
    let (chain, warnings) = matcher.check(csr, certificates, bundle_method, &sent).await?;
    // With the same key, the old certificate fits as well as the new one: it would end the link, and renew nothing.
    if let Some(present) = present.as_ref().filter(|present| present.chain.leaf.fingerprint_sha256 == chain.chain.leaf.fingerprint_sha256) {
        return Err(not_renewed(present.id));
    }
    // Corrections are of no interest here.
    let remarkable =
        warnings.iter().filter(|warning| !matches!(warning.code, WarningCode::OrderChanged | WarningCode::CertificatesLeftOut));
    let stored = Stored { expires: chain.chain.not_after, warnings: remarkable.map(Warning::message).collect() };
    let handover = Some(found.handover.id);
    let refusal = if let Some(id) = present_id {
        let change = CertificateChange { chain: Some(chain), handover, ..CertificateChange::default() };
        match deadline.write(state.store.replace_certificate(zone, id, &change, &found.actor, now)).await? {
            Replacement::Replaced(_) => None,
            Replacement::Refused(refusal) => Some(refusal),
            // It was deleted just now: the next try stores a new one.
            Replacement::NotFound => return Err(ErrorCode::CustomCertificateNotFound.into()),
        }
    } else {
        let new = NewCertificate {
            id: CustomCertificateId::new(now),
            zone: zone.clone(),
            chain,
            bundle_method,
            certificate_type: CertificateType::SniCustom,
            priority: 0,
            idempotency_key: None,
            handover,
        };
        deadline.write(state.store.accept_certificate(&new, &found.actor, now)).await?
    };
    match refusal {
        None => Ok(Some(stored)),
        Some(CertificateRefusal::HandoverEnded) => Ok(None),
        // Whoever has only the link has no contract to ask about.
        Some(CertificateRefusal::NotGranted) => Err(csr_not_found()),
        Some(refusal) => Err(refused(refusal, csr_not_found)),
    }
}

/// 1431, worded for somebody who has only the link.
fn csr_not_found() -> ApiError {
    let reason = "of this link cannot be used now: ask whoever sent you the link";
    Issue::at(ErrorCode::CertificateCsrNotFound, "/certificate").because(reason).into()
}

/// 1482 for the certificate that the link renews.
fn not_renewed(id: CustomCertificateId) -> ApiError {
    let hint = "If it is to be renewed, bring the new one, which the CA issued for the CSR of step 1.";
    Issue::at(ErrorCode::CertificateStored, "/certificate").because(id.to_string()).hinting(hint).into()
}
