//! What is written is what the document's own rendering would write, byte for byte.

use poem_openapi::types::ToJSON;
use serde::Serialize;

use super::{
    accept::CreatedDto,
    delete::{DeletedCustomCsr, DeletedCustomCsrResponse},
    dto::{CustomCsrDto, CustomCsrResponse, KeyType, Status},
    list::CustomCsrListResponse,
    quota::{Quota, QuotaResponse},
};
use crate::http::{
    envelope::{Message, Source},
    pages::ResultInfo,
    types::{DateTime, Nullable, Uuid},
};

fn check(response: &(impl Serialize + ToJSON)) {
    assert_eq!(serde_json::to_string(response).unwrap(), response.to_json_string());
}

fn full() -> CustomCsrDto {
    CustomCsrDto {
        id: Uuid("0190163d-8694-7739-aea5-966c26f8ad91".to_owned()),
        status: Status::Failed,
        error: Some("it \"failed\"\n\u{1}\u{7f}\u{2028} ü 𝄞 </script> \\".to_owned()),
        created_at: DateTime("2026-01-01T00:00:00.000000Z".to_owned()),
        updated_at: DateTime("2026-01-01T00:00:00.000001Z".to_owned()),
        account_tag: Nullable(Some("a".to_owned())),
        zone_id: Nullable(Some("z".to_owned())),
        country: "US".to_owned(),
        state: "Kalifornië".to_owned(),
        locality: "\u{0}\t/".to_owned(),
        organization: "Acme".to_owned(),
        organizational_unit: Nullable(Some("unit".to_owned())),
        common_name: "www.example.com".to_owned(),
        name: Nullable(Some(String::new())),
        description: Nullable(Some("line\nline".to_owned())),
        sans: vec!["www.example.com".to_owned(), "*.example.com".to_owned()],
        key_type: KeyType::P256v1,
        csr: Nullable(Some("-----BEGIN CERTIFICATE REQUEST-----\n".to_owned())),
        replaces: Nullable(Some(Uuid("0190163d-8694-7739-aea5-966c26f8ad92".to_owned()))),
        set_id: Nullable(Some(Uuid("0190163d-8694-7739-aea5-966c26f8ad93".to_owned()))),
        custom_certificate_ids: vec!["0190163d86947739aea5966c26f8ad91".to_owned()],
    }
}

fn bare(status: Status, key_type: KeyType) -> CustomCsrDto {
    let full = full();
    CustomCsrDto {
        status,
        error: None,
        account_tag: Nullable(None),
        zone_id: Nullable(None),
        organizational_unit: Nullable(None),
        name: Nullable(None),
        description: Nullable(None),
        sans: Vec::new(),
        key_type,
        csr: Nullable(None),
        replaces: Nullable(None),
        set_id: Nullable(None),
        custom_certificate_ids: Vec::new(),
        ..full
    }
}

#[test]
fn custom_csrs_are_written_as_documented() {
    let messages = vec![
        Message { code: 2000, message: "a \"warning\"".to_owned(), source: Some(Source::pointer("/common_name")) },
        Message { code: 2001, message: String::new(), source: None },
    ];
    check(&CustomCsrResponse::new(full(), messages));
    for status in [Status::Pending, Status::Active, Status::Failed] {
        for key_type in [KeyType::Rsa2048, KeyType::P256v1] {
            check(&CustomCsrResponse::new(bare(status, key_type), Vec::new()));
        }
    }
    check(&CreatedDto::One(CustomCsrResponse::new(full(), Vec::new())));
    let set = CustomCsrListResponse::new(vec![full(), bare(Status::Pending, KeyType::Rsa2048)], Vec::new(), ResultInfo::new(1, 20, 2, 2));
    check(&CreatedDto::Set(set));
    check(&CustomCsrListResponse::new(vec![full(), bare(Status::Active, KeyType::Rsa2048)], Vec::new(), ResultInfo::new(2, 5, 2, 7)));
    check(&DeletedCustomCsrResponse::new(DeletedCustomCsr { id: Uuid("i".to_owned()) }, Vec::new()));
    check(&QuotaResponse::new(Quota { allocated: 100, used: 3 }, Vec::new()));
}
