//! `PATCH /custom_certificates/{custom_certificate_id}`: replaces a certificate by a renewed one, or changes its settings.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use shared::{
    bodies::{undecodable::explained, upload::Upload as Sent},
    clock::Timestamp,
    codes::ErrorCode,
    custom_certificate::CustomCertificate,
    ids::{CustomCertificateId, Scope},
    issue::Warning,
    storage::{CertificateChange, NewChain, Replacement},
};

use super::{
    dry_run::DryRun,
    dto::{BundleMethod, CertificateType, CustomCertificateResponse, TAG},
    find::custom_certificate,
    matcher::Matcher,
    refused::{named_csr_not_found, refused, used_csr_not_found},
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCertificatesWrite},
    http::{
        body::Body,
        deadline::Deadline,
        error::ApiError,
        failure::{Failure, Operation},
        path::Path,
        payload::Json,
        types::Uuid,
    },
    state::AppState,
};

/// A renewed certificate, or other settings.
#[derive(Debug, Object)]
#[oai(rename = "CustomCertificateEdit")]
pub struct CustomCertificateEditInput {
    /// The renewed certificate with its intermediates, as in an upload. It replaces the old one at once.
    #[oai(nullable)]
    pub certificate: Option<String>,
    /// Another custom CSR that the renewed certificate was issued for; the old one is free then.
    #[oai(nullable)]
    pub custom_csr_id: Option<Uuid>,
    /// How the chain is to be built.
    pub bundle_method: Option<BundleMethod>,
    /// What it is for.
    #[oai(rename = "type")]
    pub certificate_type: Option<CertificateType>,
    /// Another place among others.
    #[oai(nullable, validator(maximum(value = "65535")))]
    pub priority: Option<u16>,
}

/// The operation.
pub struct Replace;

impl Operation for Replace {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (
            400,
            "The request is wrong: 1400 to 1402, 1464, 1480, or the certificate is refused: 1426, 1427, 1429, 1430, 1444, 1445, 1447, 1473, 1475 to 1479, 1484.",
        ),
        (403, "No access: 1404."),
        (404, "No such custom certificate (1481), no such custom CSR in this zone or its account (1431), or no such route (7000)."),
        (
            409,
            "The custom CSR is not active (1474), the certificate is stored already (1482), or the custom CSR has as many as it may have (1483).",
        ),
        (415, "The body is compressed: 1468."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Replace {
    /// Renew a certificate, or change its settings
    ///
    /// A renewed certificate replaces the old one at once, under the same ID. With `custom_csr_id` it moves to another custom CSR, after a
    /// rekey. Without `certificate` only the settings change. With `dry_run=true` nothing does.
    #[oai(path = "/custom_certificates/:custom_certificate_id", method = "patch", operation_id = "custom-certificates-edit")]
    async fn replace(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_certificate_id")] id: Path<CustomCertificateId>,
        body: Body<CustomCertificateEditInput>,
        dry_run: DryRun,
    ) -> Result<Json<CustomCertificateResponse>, Failure<Replace>> {
        let (state, deadline, now) = (state.0, Deadline::default(), state.clock.now());
        let matcher = Matcher::new(state, deadline, now);
        let (zone, id) = (access.scope(CustomCertificatesWrite)?, id.id()?);
        let present = custom_certificate(state, deadline, zone, id).await?;
        let body = body.json()?;
        let sent = Sent::parse_change(body).map_err(|issues| explained(body, issues))?;
        let is_dry_run = dry_run.is_set()?;
        sent.private_key.clone().map_or(Ok(()), Err)?;
        let csr_not_found = if sent.custom_csr_id.is_some() { named_csr_not_found } else { used_csr_not_found };
        let (chain, warnings) = check(&matcher, zone, &present, &sent, csr_not_found).await?;
        let Sent { bundle_method, certificate_type, priority, .. } = sent;
        let change = CertificateChange { chain, bundle_method, certificate_type, priority, handover: None };
        let response = if is_dry_run { CustomCertificateResponse::of_dry_run } else { CustomCertificateResponse::of };
        if change.chain.is_none() && bundle_method.is_none() && certificate_type.is_none() && priority.is_none() {
            return Ok(response(present, now, &warnings));
        }
        if is_dry_run {
            if let Some(chain) = &change.chain
                && let Some(refusal) = deadline.read(state.store.check_replacement(zone, id, chain)).await?
            {
                return Err(refused(refusal, csr_not_found).into());
            }
            return Ok(response(changed(present, change, now), now, &warnings));
        }
        let replacing = state.store.replace_certificate(zone, id, &change, access.actor(), now);
        match deadline.write(replacing).await? {
            Replacement::Replaced(replaced) => Ok(response(*replaced, now, &warnings)),
            Replacement::NotFound => Err(ErrorCode::CustomCertificateNotFound.into()),
            Replacement::Refused(refusal) => Err(refused(refusal, csr_not_found).into()),
        }
    }
}

/// The chain of a renewal, if there is one: for the custom CSR that it names, or for the present one.
async fn check(
    matcher: &Matcher<'_>,
    zone: &Scope,
    present: &CustomCertificate,
    sent: &Sent,
    csr_not_found: fn() -> ApiError,
) -> Result<(Option<NewChain>, Vec<Warning>), ApiError> {
    let present_csr = present.custom_csr_id.to_string();
    let named = sent.custom_csr_id.as_deref().filter(|id| !id.eq_ignore_ascii_case(&present_csr));
    if named.is_none() && sent.certificate.is_none() {
        return Ok((None, sent.warnings.clone()));
    }
    let csr = matcher.find_csr(zone, named.unwrap_or(&present_csr), Some(present.id)).await?.ok_or_else(csr_not_found)?;
    let certificates = matcher.read(sent).await?;
    let (chain, warnings) = matcher.check(csr, certificates, sent.bundle_method.unwrap_or(present.bundle_method), sent).await?;
    Ok((Some(chain), warnings))
}

/// What a change would make of a certificate.
fn changed(present: CustomCertificate, change: CertificateChange, now: Timestamp) -> CustomCertificate {
    let CertificateChange { chain, bundle_method, certificate_type, priority, handover: _ } = change;
    let is_another = chain.as_ref().is_some_and(|new| new.chain.leaf.fingerprint_sha256 != present.chain.leaf.fingerprint_sha256);
    let renewal = if is_another { present.renewal.after_replacement() } else { present.renewal.clone() };
    let (custom_csr_id, chain) = chain.map_or((present.custom_csr_id, present.chain), |new| (new.custom_csr_id, new.chain));
    CustomCertificate {
        custom_csr_id,
        chain,
        bundle_method: bundle_method.unwrap_or(present.bundle_method),
        certificate_type: certificate_type.unwrap_or(present.certificate_type),
        priority: priority.unwrap_or(present.priority),
        modified_at: now,
        renewal,
        ..present
    }
}
