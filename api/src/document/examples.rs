//! Examples: what is sent and answered, made by the types that the service answers with.

use poem_openapi::types::ToJSON;
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    clock::Timestamp,
    codes::ErrorCode,
    custom_certificate::{BundleMethod, CertificateChain, CertificateType, CustomCertificate, LeafDetails},
    custom_csr::{CustomCsr, CustomCsrRequest, KeyType, Status, Subject},
    ids::{CustomCertificateId, CustomCsrId, Scope, TenantId},
    issue::Issue,
};

use crate::{
    custom_certificates::{
        delete::{DeletedCustomCertificate, DeletedCustomCertificateResponse},
        dto::{CustomCertificateDto, CustomCertificateResponse},
        list::CustomCertificateListResponse,
    },
    custom_csrs::{
        delete::{DeletedCustomCsr, DeletedCustomCsrResponse},
        dto::{CustomCsrDto, CustomCsrResponse},
        list::CustomCsrListResponse,
        quota::{Quota, QuotaResponse},
    },
    http::{
        envelope::{ErrorResponse, Message, Null},
        pages::ResultInfo,
        types::{Always, Uuid},
    },
};

const CSR_ID: &str = "019ac9ed-6f5e-7c32-9d0c-53d6c57a1b11";
const CERTIFICATE_ID: &str = "019ac9f1b2c47d0e8f6a2b1c3d4e5f60";
const CSR: &str = include_str!("example-csr.pem");
const CERTIFICATE: &str = include_str!("example-certificate.pem");
/// 2026-11-28, 15:19:54 UTC.
const MADE: Timestamp = Timestamp::from_micros(1_795_879_194_000_000);
/// 47 days later.
const EXPIRES: Timestamp = Timestamp::from_micros(1_799_939_994_000_000);

/// Adds them to an operation.
pub fn add(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let Some((scope, name)) = id.split_once('-') else { return };
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        // The zone that a first start grants.
        match parameter["name"].as_str() {
            Some("zone_id" | "account_id") => parameter["example"] = json!("demo"),
            Some("custom_csr_id") if parameter["in"] == "path" => parameter["example"] = json!(CSR_ID),
            Some("custom_certificate_id") => parameter["example"] = json!(CERTIFICATE_ID),
            _ => {}
        }
    }
    if let Some(sent) = sent(name) {
        operation["requestBody"]["content"]["application/json"]["example"] = sent;
    }
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        let example = if status.starts_with('2') { answer(scope, name) } else { error(response) };
        if let Some(example) = example {
            response["content"]["application/json"]["example"] = example;
        }
        if let Some(pem) = response["content"].get_mut("application/x-pem-file") {
            pem["example"] = json!(CSR);
        }
    }
}

/// The body of a request.
fn sent(name: &str) -> Option<Value> {
    Some(match name {
        "custom-csrs-create" => json!({
            "country": "US",
            "state": "California",
            "locality": "San Francisco",
            "organization": "Acme Widgets, Inc.",
            "common_name": "shop.acme-widgets.com",
            "sans": ["shop.acme-widgets.com", "acme-widgets.com"],
            "name": "shop",
            "key_type": "p256v1",
        }),
        "custom-csrs-edit" => json!({ "name": "shop", "description": null }),
        "custom-csrs-rekey" => json!({ "key_type": "p256v1" }),
        "custom-certificates-create" => json!({ "certificate": CERTIFICATE, "custom_csr_id": CSR_ID }),
        "custom-certificates-edit" => json!({ "certificate": CERTIFICATE }),
        _ => return None,
    })
}

/// The body of a success.
fn answer(scope: &str, name: &str) -> Option<Value> {
    let csr = |status| custom_csr(scope, status).map(CustomCsrDto::from);
    let info = || ResultInfo::new(1, 20, 1, 1);
    match name {
        "custom-csrs-create" | "custom-csrs-rekey" => value(CustomCsrResponse::new(csr(Status::Pending)?, Vec::new())),
        "custom-csrs-get" | "custom-csrs-edit" => value(CustomCsrResponse::new(csr(Status::Active)?, Vec::new())),
        "custom-csrs-list" => value(CustomCsrListResponse::new(vec![csr(Status::Active)?], Vec::new(), info())),
        "custom-csrs-delete" => value(DeletedCustomCsrResponse::new(DeletedCustomCsr { id: Uuid(CSR_ID.to_owned()) }, Vec::new())),
        "custom-csrs-quota" => value(QuotaResponse::new(Quota { allocated: 100, used: 1 }, Vec::new())),
        "custom-certificates-create" | "custom-certificates-get" | "custom-certificates-edit" => {
            value(CustomCertificateResponse::new(CustomCertificateDto::new(custom_certificate()?, MADE), Vec::new()))
        }
        "custom-certificates-list" => {
            let listed = CustomCertificateDto::listed(custom_certificate()?, MADE);
            value(CustomCertificateListResponse::new(vec![listed], Vec::new(), info()))
        }
        "custom-certificates-delete" => {
            let deleted = DeletedCustomCertificate { id: CERTIFICATE_ID.to_owned() };
            value(DeletedCustomCertificateResponse::new(deleted, Vec::new()))
        }
        _ => None,
    }
}

/// The body of an error: the first code that the description of the response names for this operation alone.
fn error(response: &Value) -> Option<Value> {
    let text = response["description"].as_str()?;
    let numbers: Vec<u16> = text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    let named = ErrorCode::ALL.iter().filter(|code| numbers.contains(&code.number()));
    // 1400 to 1403 are less common than what comes after them.
    let code = named.clone().find(|code| code.number() > 1403).or_else(|| named.clone().next())?;
    let issue = match code {
        ErrorCode::CountryMissing => Issue::at(*code, "/country"),
        ErrorCode::ParameterOutOfRange => Issue::new(*code).because("query parameter per_page must be a whole number from 5 to 50"),
        ErrorCode::CertificateUnparsable => Issue::at(*code, "/certificate").because("block 1 is not base64"),
        ErrorCode::CertificateCsrNotFound => Issue::at(*code, "/custom_csr_id").because("is in neither this zone nor its account"),
        ErrorCode::NotReady => Issue::new(*code).because("the database cannot be reached"),
        ErrorCode::CsrNotMade => Issue::new(*code).because("it is still pending, so ask again, with `Prefer: wait=30`"),
        ErrorCode::CustomCsrNotActive => Issue::at(*code, "/custom_csr_id").because("its key and CSR are still being made"),
        _ => Issue::new(*code),
    };
    ErrorResponse { success: Always, errors: vec![Message::from(&issue)], messages: Vec::new(), result: Null }.to_json()
}

fn value(response: impl Serialize) -> Option<Value> {
    serde_json::to_value(response).ok()
}

fn custom_csr(scope: &str, status: Status) -> Option<CustomCsr> {
    let tenant = TenantId::parse("demo")?;
    let (scope, account) = if scope == "zone" { (Scope::Zone(tenant), None) } else { (Scope::Account(tenant.clone()), Some(tenant)) };
    Some(CustomCsr {
        id: CustomCsrId::parse(CSR_ID)?,
        scope,
        account,
        status,
        error: None,
        created_at: MADE,
        updated_at: MADE,
        request: CustomCsrRequest {
            subject: Subject {
                country: "US".to_owned(),
                state: "California".to_owned(),
                locality: "San Francisco".to_owned(),
                organization: "Acme Widgets, Inc.".to_owned(),
                organizational_unit: None,
                common_name: "shop.acme-widgets.com".to_owned(),
            },
            name: Some("shop".to_owned()),
            description: None,
            sans: vec!["shop.acme-widgets.com".to_owned(), "acme-widgets.com".to_owned()],
            key_type: KeyType::P256v1,
        },
        csr_pem: (status == Status::Active).then(|| CSR.to_owned()),
        replaces: None,
        certificate_ids: Vec::new(),
    })
}

fn custom_certificate() -> Option<CustomCertificate> {
    Some(CustomCertificate {
        id: CustomCertificateId::parse(CERTIFICATE_ID)?,
        zone: Scope::Zone(TenantId::parse("demo")?),
        custom_csr_id: CustomCsrId::parse(CSR_ID)?,
        chain: CertificateChain {
            pem: CERTIFICATE.to_owned(),
            hosts: vec!["shop.acme-widgets.com".to_owned(), "acme-widgets.com".to_owned()],
            issuer: "Test CA".to_owned(),
            signature: "ECDSAWithSHA256".to_owned(),
            not_after: EXPIRES,
            leaf: LeafDetails {
                not_before: MADE,
                serial_number: "6f784c6a8ebe7fd78ac753ed08038ee392f2fe68".to_owned(),
                fingerprint_sha256: "e70ea5707a0b40a83b6bf700a99219f2cc12d24a6b08aa13b6e00d9609255cc0".to_owned(),
            },
        },
        bundle_method: BundleMethod::Ubiquitous,
        certificate_type: CertificateType::SniCustom,
        priority: 0,
        uploaded_at: MADE,
        modified_at: MADE,
    })
}
