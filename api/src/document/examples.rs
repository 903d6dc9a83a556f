//! Examples: what is sent and answered, made by the types that the service answers with.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    clock::Timestamp,
    custom_certificate::{BundleMethod, CertificateChain, CertificateType, CustomCertificate, LeafDetails},
    custom_csr::{CustomCsr, CustomCsrRequest, KeyType, Status, Subject},
    handover::Handover,
    ids::{CustomCertificateId, CustomCsrId, HandoverId, Scope, SetId, TenantId, WebhookId},
    renewal::{Fraction, Renewal, RenewalKey, RenewalPolicy},
    webhook::{Delivery, DeliveryStatus, Webhook},
};

use super::errors::{self, CERTIFICATE_ID};
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
    handovers::dto::{HandoverLinkDto, HandoverLinkResponse, HandoverListResponse, RevokedHandover, RevokedHandoverResponse},
    http::{
        pages::ResultInfo,
        types::{DateTime, Nullable, Uuid},
    },
    renewals::{
        delete::{DeletedRenewalPolicy, DeletedRenewalPolicyResponse},
        dto::RenewalPolicyResponse,
    },
    webhooks::{
        delete::{DeletedWebhook, DeletedWebhookResponse},
        deliveries::DeliveryListResponse,
        dto::{DeliveryDto, WebhookDto, WebhookResponse},
        list::WebhookListResponse,
        ping::DeliveryResponse,
    },
};

/// The zone that a first start grants.
const DEMO: &str = "demo";
const CSR_ID: &str = "019ac9ed-6f5e-7c32-9d0c-53d6c57a1b11";
/// The custom CSR that a rekey made.
const NEW_CSR_ID: &str = "019ac9f0-3a1b-7d44-8e2f-7b6c5d4e3f20";
const SET_ID: &str = "019ac9ed-6f5e-7a60-b8d1-2e3f4a5b6c7d";
const HANDOVER_ID: &str = "019ac9f4-5d6e-7f80-a1b2-c3d4e5f60718";
const WEBHOOK_ID: &str = "019ac9f3-c4d5-7e1f-9a7b-3c2d4e5f6071";
const WEBHOOK_URL: &str = "https://hooks.acme-widgets.com/csrd";
const CSR: &str = include_str!("example-csr.pem");
const CERTIFICATE: &str = include_str!("example-certificate.pem");
/// 2026-11-28, 15:19:54 UTC.
const MADE: Timestamp = Timestamp::from_micros(1_795_879_194_000_000);
/// What a hand-over link says to whoever opens it.
const NOTE: &str = "Please have this signed by our company CA.";
const WEEK: Duration = Duration::from_hours(168);
/// 47 days later.
const EXPIRES: Timestamp = Timestamp::from_micros(1_799_939_994_000_000);

/// Adds them to an operation.
pub fn add(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let Some((scope, name)) = id.split_once('-') else { return };
    let Some(tenant) = scope_of(scope) else { return };
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        match parameter["name"].as_str() {
            Some("zone_id" | "account_id") => parameter["example"] = json!(DEMO),
            Some("custom_csr_id") if parameter["in"] == "path" => parameter["example"] = json!(CSR_ID),
            Some("webhook_id") => parameter["example"] = json!(WEBHOOK_ID),
            Some("handover_id") => parameter["example"] = json!(HANDOVER_ID),
            Some("custom_certificate_id") => parameter["example"] = json!(CERTIFICATE_ID),
            _ => {}
        }
    }
    let names = |parameter: &Value| parameter["name"].as_str().map(str::to_owned);
    let mut inputs: Vec<_> = operation["parameters"].as_array().into_iter().flatten().filter_map(names).collect();
    if let Some(sent) = sent(name) {
        inputs.extend(sent.as_object().into_iter().flatten().map(|(member, _)| member.clone()));
        operation["requestBody"]["content"]["application/json"]["example"] = sent;
    }
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        // 304 has no body.
        if status.starts_with('3') {
            continue;
        }
        if !status.starts_with('2') {
            let examples = errors::examples(&tenant, response["description"].as_str().unwrap_or_default(), &inputs);
            response["content"]["application/json"]["examples"] = examples;
            continue;
        }
        let json = &mut response["content"]["application/json"];
        match (answer(scope, name, status), name) {
            (Some(example), "custom-csrs-get") => {
                json["examples"] = json!({ "active": { "value": example }, "failed": { "value": failed(scope) } });
            }
            (Some(example), "custom-csrs-create") => {
                json["examples"] = json!({ "one": { "value": example }, "set": { "value": set(scope) } });
            }
            (Some(example), _) => json["example"] = example,
            (None, _) => {}
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
        "handovers-create" => json!({ "expires_in": 604_800, "note": NOTE }),
        "custom-certificates-create" => json!({ "certificate": CERTIFICATE, "custom_csr_id": CSR_ID }),
        "custom-certificates-edit" => json!({ "certificate": CERTIFICATE }),
        "renewal-policies-set" => json!({ "key": "new", "at": 0.25 }),
        "webhooks-create" => json!({
            "url": WEBHOOK_URL,
            "events": ["custom_csr.active", "custom_certificate.expiring"],
            "description": "renewals",
        }),
        "webhooks-edit" => json!({ "events": ["*"], "enabled": true }),
        _ => return None,
    })
}

/// The body of a success with this status.
fn answer(scope: &str, name: &str, status: &str) -> Option<Value> {
    let csr = |status| custom_csr(scope, status).map(CustomCsrDto::from);
    let info = || ResultInfo::new(1, 20, 1, 1);
    match name {
        "custom-csrs-create" => value(CustomCsrResponse::new(csr(Status::Pending)?, Vec::new())),
        "custom-csrs-rekey" => {
            let replaces = Some(CustomCsrId::parse(CSR_ID)?);
            let made = CustomCsr { id: CustomCsrId::parse(NEW_CSR_ID)?, replaces, ..custom_csr(scope, Status::Pending)? };
            value(CustomCsrResponse::new(made.into(), Vec::new()))
        }
        "custom-csrs-get" | "custom-csrs-edit" | "custom-csrs-restore" => value(CustomCsrResponse::new(csr(Status::Active)?, Vec::new())),
        "custom-csrs-list" => value(CustomCsrListResponse::new(vec![csr(Status::Active)?], Vec::new(), info())),
        "custom-csrs-delete" => value(DeletedCustomCsrResponse::new(DeletedCustomCsr { id: Uuid(CSR_ID.to_owned()) }, Vec::new())),
        "custom-csrs-quota" => value(QuotaResponse::new(Quota { allocated: 100, used: 1 }, Vec::new())),
        // A dry run.
        "custom-certificates-create" if status == "200" => value(CustomCertificateResponse::of_dry_run(custom_certificate()?, MADE, &[]).0),
        "custom-certificates-create" | "custom-certificates-get" | "custom-certificates-edit" => {
            value(CustomCertificateResponse::of(custom_certificate()?, MADE, &[]).0)
        }
        "custom-certificates-list" => {
            let listed = CustomCertificateDto::listed(custom_certificate()?, MADE);
            value(CustomCertificateListResponse::new(vec![listed], Vec::new(), info()))
        }
        "custom-certificates-delete" => {
            let deleted = DeletedCustomCertificate { id: CERTIFICATE_ID.to_owned() };
            value(DeletedCustomCertificateResponse::new(deleted, Vec::new()))
        }
        "handovers-create" => value(HandoverLinkResponse::new(
            HandoverLinkDto {
                id: Uuid(HANDOVER_ID.to_owned()),
                url: "https://csrd.example/handover/8f3NnR5vT1xZk2aQm7LdYcU4hW0bEoGsJpKqVtXyI6M".to_owned(),
                expires_at: DateTime(MADE.plus(WEEK).rfc3339()),
                note: Nullable(Some(NOTE.to_owned())),
                created_at: DateTime(MADE.rfc3339()),
            },
            Vec::new(),
        )),
        "handovers-list" => value(HandoverListResponse::new(vec![handover()?.into()], Vec::new())),
        "handovers-delete" => value(RevokedHandoverResponse::new(RevokedHandover { id: Uuid(HANDOVER_ID.to_owned()) }, Vec::new())),
        "renewal-policies-set" | "renewal-policies-get" => {
            let policy = RenewalPolicy {
                zone: scope_of(scope)?,
                key: RenewalKey::New,
                at: Fraction::new(0.25)?,
                created_at: MADE,
                updated_at: MADE,
            };
            value(RenewalPolicyResponse::new(policy.into(), Vec::new()))
        }
        "renewal-policies-delete" => {
            value(DeletedRenewalPolicyResponse::new(DeletedRenewalPolicy { zone_id: DEMO.to_owned() }, Vec::new()))
        }
        "webhooks-create" => {
            let secret = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
            value(WebhookResponse::new(WebhookDto { secret, ..webhook(scope)?.into() }, Vec::new()))
        }
        "webhooks-get" | "webhooks-edit" => value(WebhookResponse::new(webhook(scope)?.into(), Vec::new())),
        "webhooks-list" => value(WebhookListResponse::new(vec![webhook(scope)?.into()], Vec::new())),
        "webhooks-delete" => value(DeletedWebhookResponse::new(DeletedWebhook { id: Uuid(WEBHOOK_ID.to_owned()) }, Vec::new())),
        "webhooks-ping" => value(DeliveryResponse::new(delivery("ping", DeliveryStatus::Pending).into(), Vec::new())),
        "webhooks-deliveries" => {
            let delivered = DeliveryDto::from(delivery("custom_csr.active", DeliveryStatus::Delivered));
            value(DeliveryListResponse::new(vec![delivered], Vec::new()))
        }
        _ => None,
    }
}

/// The body of what was made with `key_types`.
fn set(scope: &str) -> Option<Value> {
    let set_id = Some(SetId::parse(SET_ID)?);
    let one = |id, key_type| {
        let csr = custom_csr(scope, Status::Pending)?;
        let request = CustomCsrRequest { key_type, ..csr.request };
        Some(CustomCsr { id: CustomCsrId::parse(id)?, set_id, request, ..csr }.into())
    };
    let csrs = vec![one(CSR_ID, KeyType::Rsa2048)?, one(NEW_CSR_ID, KeyType::P256v1)?];
    value(CustomCsrListResponse::new(csrs, Vec::new(), ResultInfo::new(1, 20, 2, 2)))
}

/// The body of a GET of a custom CSR whose key could not be made.
fn failed(scope: &str) -> Option<Value> {
    let error = Some("Generation failed 3 times.".to_owned());
    let failed = CustomCsr { error, ..custom_csr(scope, Status::Failed)? };
    value(CustomCsrResponse::new(failed.into(), Vec::new()))
}

/// The zone or the account of the examples.
fn scope_of(kind: &str) -> Option<Scope> {
    let tenant = TenantId::parse(DEMO)?;
    Some(if kind == "zone" { Scope::Zone(tenant) } else { Scope::Account(tenant) })
}

fn value(response: impl Serialize) -> Option<Value> {
    serde_json::to_value(response).ok()
}

fn custom_csr(scope: &str, status: Status) -> Option<CustomCsr> {
    let scope = scope_of(scope)?;
    let account = match &scope {
        Scope::Zone(_) => None,
        Scope::Account(id) => Some(id.clone()),
    };
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
        set_id: None,
        certificate_ids: Vec::new(),
    })
}

fn handover() -> Option<Handover> {
    Some(Handover {
        id: HandoverId::parse(HANDOVER_ID)?,
        custom_csr_id: CustomCsrId::parse(CSR_ID)?,
        replaces: None,
        note: Some(NOTE.to_owned()),
        created_at: MADE,
        expires_at: MADE.plus(WEEK),
        opened_at: Some(MADE),
        used_at: None,
        revoked_at: None,
    })
}

fn webhook(scope: &str) -> Option<Webhook> {
    Some(Webhook {
        id: WebhookId::parse(WEBHOOK_ID)?,
        scope: scope_of(scope)?,
        url: WEBHOOK_URL.to_owned(),
        events: vec!["custom_csr.active".to_owned(), "custom_certificate.expiring".to_owned()],
        description: Some("renewals".to_owned()),
        enabled: true,
        disabled_reason: None,
        created_at: MADE,
        updated_at: MADE,
    })
}

fn delivery(event: &str, status: DeliveryStatus) -> Delivery {
    let is_pending = status == DeliveryStatus::Pending;
    Delivery {
        id: "3f0c9f6f7f0e4d0e9d0b5f3f1a2b3c4d".to_owned(),
        event: event.to_owned(),
        occurred_at: MADE,
        status,
        attempts: u32::from(!is_pending),
        response_status: (!is_pending).then_some(204),
        next_attempt_at: is_pending.then_some(MADE),
    }
}

fn custom_certificate() -> Option<CustomCertificate> {
    Some(CustomCertificate {
        id: CustomCertificateId::parse(CERTIFICATE_ID)?,
        zone: Scope::Zone(TenantId::parse(DEMO)?),
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
        renewal: Renewal::default(),
    })
}
