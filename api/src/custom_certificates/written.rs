//! What is written is what the document's own rendering would write, byte for byte.

use poem_openapi::types::ToJSON;
use serde::Serialize;

use super::{
    delete::{DeletedCustomCertificate, DeletedCustomCertificateResponse},
    dto::{BundleMethod, CertificateStatus, CertificateType, CustomCertificateDto, CustomCertificateResponse, RenewalStatus},
    list::CustomCertificateListResponse,
};
use crate::http::{
    pages::ResultInfo,
    types::{DateTime, Nullable, Uuid},
};

fn check(response: &(impl Serialize + ToJSON)) {
    assert_eq!(serde_json::to_string(response).unwrap(), response.to_json_string());
}

fn certificate(status: CertificateStatus, bundle_method: BundleMethod, certificate_type: CertificateType) -> CustomCertificateDto {
    CustomCertificateDto {
        id: Nullable(Some("0190163d86947739aea5966c26f8ad91".to_owned())),
        zone_id: "z".to_owned(),
        status,
        custom_csr_id: Uuid("0190163d-8694-7739-aea5-966c26f8ad91".to_owned()),
        hosts: vec!["www.example.com".to_owned()],
        issuer: "Acme \"CA\"".to_owned(),
        signature: "SHA256WithRSA".to_owned(),
        expires_on: DateTime("2026-01-01T00:00:00.000000Z".to_owned()),
        uploaded_on: DateTime("2026-01-01T00:00:00.000000Z".to_owned()),
        modified_on: DateTime("2026-01-01T00:00:00.000000Z".to_owned()),
        bundle_method,
        certificate_type,
        priority: 20,
        chain: matches!(status, CertificateStatus::Active).then(|| "-----BEGIN CERTIFICATE-----\n".to_owned()),
        fingerprint_sha256: "ff".to_owned(),
        serial_number: "-05".to_owned(),
        not_before: DateTime("2025-01-01T00:00:00.000000Z".to_owned()),
        renewal: RenewalStatus::CsrReady,
        renew_after: Nullable(Some(DateTime("2025-12-01T00:00:00.000000Z".to_owned()))),
        renewal_explanation_url: Nullable(None),
    }
}

#[test]
fn custom_certificates_are_written_as_documented() {
    use {BundleMethod as Bundle, CertificateStatus as Standing, CertificateType as Kind};
    for status in [Standing::Active, Standing::Expired, Standing::Deleted, Standing::Pending, Standing::Initializing] {
        for bundle_method in [Bundle::Ubiquitous, Bundle::Optimal, Bundle::Force] {
            for kind in [Kind::SniCustom, Kind::LegacyCustom] {
                let one = certificate(status, bundle_method, kind);
                check(&CustomCertificateListResponse::new(vec![one], Vec::new(), ResultInfo::new(1, 20, 1, 1)));
            }
        }
    }
    check(&CustomCertificateResponse::new(certificate(Standing::Active, Bundle::Force, Kind::SniCustom), Vec::new()));
    check(&DeletedCustomCertificateResponse::new(DeletedCustomCertificate { id: "i".to_owned() }, Vec::new()));
}
