//! `POST /custom_certificates`: stores a certificate for a custom CSR.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{ApiResponse, Object, OpenApi};
use shared::{
    bodies::{undecodable::explained, upload::Upload as Sent},
    clock::Timestamp,
    codes::ErrorCode,
    custom_certificate::{self, CustomCertificate},
    ids::{CustomCertificateId, Scope},
    renewal::Renewal,
    storage::{CertificateRefusal, IdempotencyKey, NewCertificate, NewChain, Repeat},
};

use super::{
    dry_run::DryRun,
    dto::{BundleMethod, CertificateType, CustomCertificateResponse, TAG},
    find,
    matcher::Matcher,
    refused::{named_csr_not_found, refused},
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCertificatesWrite},
    grants::not_granted,
    http::{
        body::Body,
        deadline::Deadline,
        error::ApiError,
        failure::{Failure, Operation},
        header::Header,
        idempotency::IdempotencyHeader,
        payload::Json,
        types::Uuid,
    },
    state::AppState,
};

/// A certificate that a CA issued for a custom CSR. Private keys are made here and never uploaded: `private_key` is refused.
#[derive(Debug, Object)]
#[oai(rename = "CustomCertificateRequest")]
pub struct CustomCertificateInput {
    /// The leaf and its intermediates, in any order, at most 10 certificates: PEM blocks, one block of PKCS#7, or the base64 of either.
    #[oai(validator(min_length = 1))]
    pub certificate: String,
    /// The custom CSR that it was issued for: the zone's own, or its account's. Without it, the active one whose key the leaf has.
    #[oai(nullable)]
    pub custom_csr_id: Option<Uuid>,
    /// How the chain is to be built; `ubiquitous` if absent.
    pub bundle_method: Option<BundleMethod>,
    /// What it is for; `sni_custom` if absent.
    #[oai(rename = "type")]
    pub certificate_type: Option<CertificateType>,
    /// Its place among others; 0 if absent. It is stored and returned, and has no effect here.
    #[oai(nullable, validator(maximum(value = "65535")))]
    pub priority: Option<u16>,
}

/// What an upload answers.
#[derive(ApiResponse)]
pub enum Uploaded {
    /// With `dry_run=true`: every check passed, and nothing was stored; `id` is null.
    #[oai(status = 200)]
    Checked(Json<CustomCertificateResponse>),
    /// Stored, and active.
    #[oai(status = 201)]
    Stored(
        Json<CustomCertificateResponse>,
        /// Where to read it: an absolute path.
        #[oai(header = "Location")]
        String,
        /// `true` if the `Idempotency-Key` stored this custom certificate before.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

/// The operation.
pub struct Upload;

impl Operation for Upload {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (
            400,
            "The request is wrong: 1400 to 1402, 1464, or the certificate is refused: 1426, 1427, 1429, 1430, 1444, 1445, 1447, 1472, 1473, 1475 to 1479, 1484.",
        ),
        (403, "No access: 1404."),
        (
            404,
            "No such custom CSR in this zone or its account (1431), the custom certificate that the Idempotency-Key stored was deleted (1481), or no such route (7000).",
        ),
        (
            409,
            "The custom CSR is not active (1474), the certificate is stored already (1482), or the custom CSR has as many as it may have (1483).",
        ),
        (415, "The body is compressed: 1468."),
        (422, "The Idempotency-Key was used before with another body: 1466."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Upload {
    /// Upload a certificate
    ///
    /// Puts the chain right, and matches it to the private key of its custom CSR, which may have 20 custom certificates. The first check that fails is the only error.
    /// While it is not expired, its custom CSR cannot be deleted. With `dry_run=true` nothing is stored, and an `Idempotency-Key` is not used.
    #[oai(path = "/custom_certificates", method = "post", operation_id = "custom-certificates-create")]
    async fn upload(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        body: Body<CustomCertificateInput>,
        dry_run: DryRun,
        #[oai(name = "Idempotency-Key")] Header(key): Header<IdempotencyHeader>,
    ) -> Result<Uploaded, Failure<Upload>> {
        let (state, deadline, now) = (state.0, Deadline::default(), state.clock.now());
        let matcher = Matcher::new(state, deadline, now);
        let zone = access.scope(CustomCertificatesWrite)?;
        check_grant(state, deadline, zone).await?;
        let body = body.json()?;
        let sent = Sent::parse(body).map_err(|issues| explained(body, issues))?;
        let is_dry_run = dry_run.is_set()?;
        let key = key.of(access.subject(), &identity(body))?.filter(|_| !is_dry_run);
        sent.private_key.clone().map_or(Ok(()), Err)?;
        if let Some(replayed) = replay(state, deadline, &access, zone, key.as_ref()).await? {
            return Ok(replayed);
        }
        let named = match &sent.custom_csr_id {
            Some(id) => Some(matcher.find_csr(zone, id, None).await?.ok_or_else(named_csr_not_found)?),
            None => None,
        };
        let certificates = matcher.read(&sent).await?;
        let csr = match named {
            Some(csr) => csr,
            None => matcher.find_csr_by_key(zone, &certificates).await?,
        };
        let bundle_method = sent.bundle_method.unwrap_or(custom_certificate::BundleMethod::Ubiquitous);
        let (chain, warnings) = matcher.check(csr, certificates, bundle_method, &sent).await?;
        let new = NewCertificate {
            id: CustomCertificateId::new(now),
            zone: zone.clone(),
            chain,
            bundle_method,
            certificate_type: sent.certificate_type.unwrap_or(custom_certificate::CertificateType::SniCustom),
            priority: sent.priority.unwrap_or_default(),
            idempotency_key: key,
            handover: None,
        };
        let refusal = if is_dry_run {
            deadline.read(state.store.check_certificate(&new)).await?
        } else {
            deadline.write(state.store.accept_certificate(&new, access.actor(), now)).await?
        };
        // The same request, twice at the same time.
        if refusal == Some(CertificateRefusal::KeyTaken)
            && let Some(replayed) = replay(state, deadline, &access, zone, new.idempotency_key.as_ref()).await?
        {
            return Ok(replayed);
        }
        if let Some(refusal) = refusal {
            return Err(refused(refusal, named_csr_not_found).into());
        }
        let location = location(&access, new.id);
        let made = made(new, now);
        Ok(if is_dry_run {
            Uploaded::Checked(CustomCertificateResponse::of_dry_run(made, now, &warnings))
        } else {
            Uploaded::Stored(CustomCertificateResponse::of(made, now, &warnings), location, None)
        })
    }
}

/// What the same key with another body would differ in. The kind of request stands before the body: no custom CSR was made by it.
fn identity(body: &[u8]) -> Vec<u8> {
    [b"custom_certificates", body].concat()
}

fn location(access: &Access, id: CustomCertificateId) -> String {
    access.location(&format!("custom_certificates/{id}"))
}

/// Answers a request that came before with the same key, with what it stored as that is now.
async fn replay(
    state: &AppState,
    deadline: Deadline,
    access: &Access,
    zone: &Scope,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Uploaded>, ApiError> {
    let Some(key) = key else { return Ok(None) };
    let now = state.clock.now();
    let id = match deadline.read(state.store.find_upload(zone, key, now)).await? {
        None => return Ok(None),
        Some(Repeat::KeyReused) => return Err(ErrorCode::IdempotencyKeyReused.into()),
        Some(Repeat::Replayed(id)) => id,
    };
    let certificate = find::custom_certificate(state, deadline, zone, id).await?;
    Ok(Some(Uploaded::Stored(CustomCertificateResponse::of(certificate, now, &[]), location(access, id), Some("true".to_owned()))))
}

/// Checks that a zone may have custom certificates; they need no quota.
async fn check_grant(state: &AppState, deadline: Deadline, zone: &Scope) -> Result<(), ApiError> {
    let grant = deadline.read(state.store.find_scope(zone)).await?;
    match grant {
        Some(grant) if grant.granted => Ok(()),
        grant => Err(not_granted(zone, grant.as_ref()).into()),
    }
}

fn made(new: NewCertificate, now: Timestamp) -> CustomCertificate {
    let NewCertificate { id, zone, chain, bundle_method, certificate_type, priority, idempotency_key: _, handover: _ } = new;
    let NewChain { custom_csr_id, spki_sha256: _, chain } = chain;
    CustomCertificate {
        id,
        zone,
        custom_csr_id,
        chain,
        bundle_method,
        certificate_type,
        priority,
        uploaded_at: now,
        modified_at: now,
        renewal: Renewal::default(),
    }
}
