//! Custom certificates on the wire.

use poem_openapi::{Enum, Object, registry::MetaSchema};
use serde::Serialize;
use shared::{
    clock::Timestamp,
    codes::ErrorCode,
    custom_certificate::{self, CustomCertificate},
    ids::CustomCertificateId,
    issue::Warning,
    renewal,
};

use crate::http::{
    envelope::{Message, envelopes},
    mounted::Tag,
    path::PathId,
    payload::Json,
    types::{DateTime, Nullable, Uuid},
};

/// The tag of the operations.
pub const TAG: Tag = Tag("custom-certificates");

impl PathId for CustomCertificateId {
    const INVALID: ErrorCode = ErrorCode::CustomCertificateIdInvalid;
    const FORM: &'static str =
        "The ID of a custom certificate is 32 hexadecimal digits without hyphens, as in 0190163d86947739aea5966c26f8ad91.";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn schema() -> MetaSchema {
        MetaSchema {
            description: Some("The custom certificate's ID."),
            min_length: Some(32),
            max_length: Some(32),
            pattern: Some("^[0-9A-Fa-f]+$".to_owned()),
            ..MetaSchema::new("string")
        }
    }
}

/// How a chain is to be built, in any case. `force` asks for it to be stored as it was sent; otherwise it is put right.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum BundleMethod {
    /// For the oldest clients.
    Ubiquitous,
    /// The same here.
    Optimal,
    /// As it was sent: what deviates is an error.
    Force,
}

impl From<custom_certificate::BundleMethod> for BundleMethod {
    fn from(method: custom_certificate::BundleMethod) -> Self {
        match method {
            custom_certificate::BundleMethod::Ubiquitous => Self::Ubiquitous,
            custom_certificate::BundleMethod::Optimal => Self::Optimal,
            custom_certificate::BundleMethod::Force => Self::Force,
        }
    }
}

/// What a certificate is for. It is stored and returned, and has no effect here.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum CertificateType {
    /// For clients that name the host.
    SniCustom,
    /// For clients that do not.
    LegacyCustom,
}

impl From<custom_certificate::CertificateType> for CertificateType {
    fn from(certificate_type: custom_certificate::CertificateType) -> Self {
        match certificate_type {
            custom_certificate::CertificateType::SniCustom => Self::SniCustom,
            custom_certificate::CertificateType::LegacyCustom => Self::LegacyCustom,
        }
    }
}

/// Where a custom certificate stands. Only `active` and `expired` occur; the others are those of the Cloudflare v4 API.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum CertificateStatus {
    /// Valid.
    Active,
    /// Its notAfter has passed.
    Expired,
    /// Does not occur.
    Deleted,
    /// Does not occur.
    Pending,
    /// Does not occur.
    Initializing,
}

impl From<custom_certificate::CertificateStatus> for CertificateStatus {
    fn from(status: custom_certificate::CertificateStatus) -> Self {
        match status {
            custom_certificate::CertificateStatus::Active => Self::Active,
            custom_certificate::CertificateStatus::Expired => Self::Expired,
            custom_certificate::CertificateStatus::Deleted => Self::Deleted,
            custom_certificate::CertificateStatus::Pending => Self::Pending,
            custom_certificate::CertificateStatus::Initializing => Self::Initializing,
        }
    }
}

/// The status of a certificate's renewal, which the zone's renewal policy begins.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum RenewalStatus {
    /// Not due.
    None,
    /// Due; there is no CSR to sign yet.
    Due,
    /// There is a CSR to sign: the event `custom_certificate.renewal_due` has it.
    CsrReady,
    /// The renewed certificate is stored. The status stays so until the next renewal is due.
    Done,
}

impl From<renewal::RenewalStatus> for RenewalStatus {
    fn from(status: renewal::RenewalStatus) -> Self {
        match status {
            renewal::RenewalStatus::None => Self::None,
            renewal::RenewalStatus::Due => Self::Due,
            renewal::RenewalStatus::CsrReady => Self::CsrReady,
            renewal::RenewalStatus::Done => Self::Done,
        }
    }
}

/// A custom certificate.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "CustomCertificate")]
pub struct CustomCertificateDto {
    /// Its ID, 32 hexadecimal digits. It stays when the certificate is renewed. Null in the answer of a dry run, which stores nothing.
    pub id: Nullable<String>,
    /// The zone that it lies in.
    pub zone_id: String,
    /// Where it stands now.
    pub status: CertificateStatus,
    /// The custom CSR whose private key it is for.
    pub custom_csr_id: Uuid,
    /// The DNS names in it; without any, its common name.
    pub hosts: Vec<String>,
    /// Who issued it: the organization, else the common name.
    pub issuer: String,
    /// Its signature algorithm.
    pub signature: String,
    /// Its notAfter.
    pub expires_on: DateTime,
    /// When it was first uploaded.
    pub uploaded_on: DateTime,
    /// When it last changed.
    pub modified_on: DateTime,
    /// How the chain is to be built.
    pub bundle_method: BundleMethod,
    /// What it is for.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub certificate_type: CertificateType,
    /// Its place among others: stored and returned, and without effect here.
    pub priority: u16,
    /// What `fullchain.pem` holds, in PEM: the leaf, then each issuer in turn. Lists leave it out.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// SHA-256 of the leaf in DER, in hexadecimal.
    pub fingerprint_sha256: String,
    /// The leaf's serial number in hexadecimal.
    pub serial_number: String,
    /// The leaf's notBefore.
    pub not_before: DateTime,
    /// The status of its renewal.
    pub renewal: RenewalStatus,
    /// When to renew it, chosen within the window of its issuer (ARI, RFC 9773); null if the issuer is not asked.
    pub renew_after: Nullable<DateTime>,
    /// The page with the issuer's reason; null if there is none.
    pub renewal_explanation_url: Nullable<String>,
}

impl CustomCertificateDto {
    /// As it stands at this time, in a list.
    #[must_use]
    pub fn listed(certificate: CustomCertificate, now: Timestamp) -> Self {
        Self { chain: None, ..Self::new(certificate, now) }
    }

    /// As it stands at this time.
    #[must_use]
    pub fn new(certificate: CustomCertificate, now: Timestamp) -> Self {
        let status = certificate.status(now).into();
        let CustomCertificate {
            id,
            zone,
            custom_csr_id,
            chain,
            bundle_method,
            certificate_type,
            priority,
            uploaded_at,
            modified_at,
            renewal,
        } = certificate;
        let custom_certificate::CertificateChain { pem, hosts, issuer, signature, not_after, leaf } = chain;
        let custom_certificate::LeafDetails { not_before, serial_number, fingerprint_sha256 } = leaf;
        Self {
            id: Nullable(Some(id.to_string())),
            zone_id: zone.id().to_string(),
            status,
            custom_csr_id: Uuid(custom_csr_id.to_string()),
            hosts,
            issuer,
            signature,
            expires_on: DateTime(not_after.rfc3339()),
            uploaded_on: DateTime(uploaded_at.rfc3339()),
            modified_on: DateTime(modified_at.rfc3339()),
            bundle_method: bundle_method.into(),
            certificate_type: certificate_type.into(),
            priority,
            chain: Some(pem),
            fingerprint_sha256,
            serial_number,
            not_before: DateTime(not_before.rfc3339()),
            renewal: renewal.status.into(),
            renew_after: Nullable(renewal.after.map(|after| DateTime(after.rfc3339()))),
            renewal_explanation_url: Nullable(renewal.explanation_url),
        }
    }
}

envelopes! {
    /// One custom certificate.
    CustomCertificateResponse(CustomCertificateDto) {}
}

impl CustomCertificateResponse {
    /// A custom certificate as it stands at this time, with what is remarkable about the request.
    #[must_use]
    pub fn of(certificate: CustomCertificate, now: Timestamp, warnings: &[Warning]) -> Json<Self> {
        Json(Self::new(CustomCertificateDto::new(certificate, now), warnings.iter().map(Message::from).collect()))
    }

    /// A custom certificate as it would be after a request that was a dry run, without an ID.
    #[must_use]
    pub fn of_dry_run(certificate: CustomCertificate, now: Timestamp, warnings: &[Warning]) -> Json<Self> {
        let certificate = CustomCertificateDto { id: Nullable(None), ..CustomCertificateDto::new(certificate, now) };
        Json(Self::new(certificate, warnings.iter().map(Message::from).collect()))
    }
}
