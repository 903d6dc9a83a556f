//! Examples of errors: one for each code that a response can have. The code that answers with it makes them, as far as that needs no
//! certificate.

use poem::http::{HeaderMap, HeaderName, HeaderValue};
use poem_openapi::types::ToJSON;
use serde_json::{Map, Value, json};
use shared::{
    bodies::{undecodable::explained, webhook::url_refused},
    codes::ErrorCode,
    custom_csr::Status,
    ids::{CustomCertificateId, CustomCsrId, HandoverId, Scope, WebhookId},
    issue::{Input, Issue},
    storage::CertificateRefusal,
    webhook::WEBHOOKS_MAX,
    x509::issues::{issue as of_certificate, other_key, private_key_refused},
};

use crate::{
    auth::access::not_reached,
    custom_certificates::refused::{named_csr_not_found, refused},
    custom_csrs::{delete::used_by, get::no_csr_yet, not_active::not_active},
    grants::{no_quota, quota_used_up},
    http::{
        error::ApiError,
        flag,
        header::HeaderParameter,
        idempotency::IdempotencyHeader,
        pages::PerPage,
        path::invalid,
        query::{Parameter, out_of_range},
        rate_limit::too_many_requests,
    },
};

/// The custom certificate of the examples.
pub const CERTIFICATE_ID: &str = "019ac9f1b2c47d0e8f6a2b1c3d4e5f60";
/// The values for the placeholders of a code's text, if no example has them.
const LEFT_OPEN: &str = "…";

/// The examples of a response, by code: one for each code that its description names, with common codes last. The inputs are the names of
/// the parameters and members that the operation reads.
pub fn examples(scope: &Scope, description: &str, inputs: &[String]) -> Value {
    let mut codes = named(description);
    codes.sort_by_key(|code| rank(*code));
    let example = |code: ErrorCode| {
        let summary = format!("{}: {}", code.number(), code.meaning().replace('`', ""));
        let value = error(code, scope, inputs).body(None).to_json();
        // JavaScript would sort numbers, and show another one first.
        (format!("Error{}", code.number()), json!({ "summary": summary, "value": value }))
    };
    codes.into_iter().map(example).collect::<Map<_, _>>().into()
}

/// The codes that a description names: single ones, and ranges such as `1405 to 1417`.
fn named(description: &str) -> Vec<ErrorCode> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    let mut rest = description;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[at..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |length| at + length);
        // Other numbers are not codes.
        let number = rest[at..digits].parse().unwrap_or_default();
        match ranges.last_mut() {
            Some((_, last)) if rest[..at] == *" to " => *last = number,
            _ => ranges.push((number, number)),
        }
        rest = &rest[digits..];
    }
    let is_named = |code: &ErrorCode| ranges.iter().any(|(first, last)| (*first..=*last).contains(&code.number()));
    ErrorCode::ALL.iter().copied().filter(is_named).collect()
}

/// All operations have 1400 to 1403 and 7000, and many have 1464.
fn rank(code: ErrorCode) -> u8 {
    match code.number() {
        ..=1403 | 7000 => 2,
        1464 => 1,
        _ => 0,
    }
}

/// The error with a code, of an operation in a zone or an account that reads these parameters and members.
fn error(code: ErrorCode, scope: &Scope, inputs: &[String]) -> ApiError {
    let san = |name: &str, rule: &str| Issue::at(code, "/sans/0").hinting(format!("‘{name}’ {rule}."));
    let issue = match code {
        ErrorCode::BodyUndecodable => return ApiError::new(explained(b"{\"name\":", vec![Issue::new(code)])),
        ErrorCode::QuotaNotAllocated => no_quota(scope),
        ErrorCode::AccessNotGranted => return not_reached(scope),
        ErrorCode::CountryMissing | ErrorCode::CountryUnknown => Issue::at(code, "/country"),
        ErrorCode::StateMissing => Issue::at(code, "/state"),
        ErrorCode::LocalityMissing => Issue::at(code, "/locality"),
        ErrorCode::OrganizationMissing => Issue::at(code, "/organization"),
        ErrorCode::CommonNameMissing | ErrorCode::CommonNameTooLong => Issue::at(code, "/common_name"),
        ErrorCode::SansMissing | ErrorCode::TooManySans => Issue::at(code, "/sans"),
        ErrorCode::SanInvalid => san("https://acme-widgets.com", "is a URL: send its host name alone"),
        ErrorCode::SanNotAscii => san("bücher.acme-widgets.com", "has a character that is not ASCII: write its labels as A-labels (xn--…)"),
        ErrorCode::SanReserved => san("shop.test", "ends in .test, a top domain that is reserved"),
        ErrorCode::SanNotRegistrable => san("co.uk", "is a public suffix, under which others register names: add the label before it")
            .because("publicsuffix: cannot derive eTLD+1 for domain \"co.uk\""),
        ErrorCode::SanExampleDomain => san("shop.example.com", "is in example.com, a domain for examples"),
        ErrorCode::KeyTypeInvalid => Issue::at(code, "/key_type"),
        ErrorCode::KeyTypesInvalid => Issue::at(code, "/key_types").because("has 1 key type"),
        ErrorCode::CustomCsrIdInvalid => invalid::<CustomCsrId>(),
        ErrorCode::CustomCsrInUse => used_by(&CustomCertificateId::parse(CERTIFICATE_ID).map_or_else(Vec::new, |id| vec![id])),
        ErrorCode::CertificateUnparsable => of_certificate(code, "PEM block 1 (CERTIFICATE) is cut off: its END line is missing"),
        ErrorCode::CertificateMissing | ErrorCode::NoLeaf | ErrorCode::CaForKey => Issue::at(code, "/certificate"),
        ErrorCode::CertificateKeyMismatch => other_key(),
        ErrorCode::CertificateCsrIdInvalid | ErrorCode::NoCsrForKey => Issue::at(code, "/custom_csr_id"),
        ErrorCode::CertificateCsrNotFound => return named_csr_not_found(),
        ErrorCode::SeveralLeaves => {
            of_certificate(code, "certificate 1 (CN=shop.acme-widgets.com), certificate 2 (CN=www.acme-widgets.com)")
        }
        ErrorCode::SignatureUnsupported => of_certificate(code, "certificate 1 (CN=shop.acme-widgets.com) is signed with RSA and SHA-1"),
        ErrorCode::FieldTooLong => Issue::at(code, "/description").because("description is longer than 1024 characters"),
        ErrorCode::FieldHasControls => {
            let field = if inputs.iter().any(|input| input == "note") { "note" } else { "description" };
            Issue::at(code, format!("/{field}")).because(format!("{field} has control characters"))
        }
        ErrorCode::ParameterOutOfRange => parameter_out_of_range(inputs),
        ErrorCode::QuotaUsedUp => quota_used_up(scope, 100, 1),
        ErrorCode::BodyEncoded => Issue::of(code, Input::Header("Content-Encoding")),
        ErrorCode::CsrNotMade => no_csr_yet(Status::Pending),
        ErrorCode::TooManyRequests => too_many_requests(),
        ErrorCode::NotReady => Issue::new(code).because("the database cannot be reached"),
        ErrorCode::PrivateKeyRefused => private_key_refused(),
        ErrorCode::CustomCsrNotActive => not_active(Status::Pending),
        ErrorCode::LeafNotValid => of_certificate(code, "expired at 2026-11-28T15:19:54.000000Z"),
        ErrorCode::ChainBroken => of_certificate(
            code,
            "certificate 2 (CN=Test CA) has the name of the issuer of certificate 1 (CN=shop.acme-widgets.com), and did not make its signature",
        ),
        ErrorCode::RsaKeyTooSmall => of_certificate(code, "that of certificate 2 (CN=Test CA) has 1024 bits"),
        ErrorCode::NoTrustedPath => of_certificate(
            code,
            "the issuer of certificate 1 (CN=shop.acme-widgets.com) is neither among the certificates nor a trust anchor: CN=Test CA",
        ),
        ErrorCode::CustomCertificateIdInvalid => invalid::<CustomCertificateId>(),
        ErrorCode::CertificateStored => {
            let Some(id) = CustomCertificateId::parse(CERTIFICATE_ID) else { return code.into() };
            return refused(CertificateRefusal::Stored(id), named_csr_not_found);
        }
        ErrorCode::TooManyCertificates => return refused(CertificateRefusal::CsrFull, named_csr_not_found),
        ErrorCode::NotForServers => {
            of_certificate(code, "the certificate has an extended key usage without TLS servers in it (it is for TLS clients)")
        }
        ErrorCode::HandoverLifetimeInvalid => Issue::at(code, "/expires_in"),
        ErrorCode::HandoverNoteTooLong => Issue::at(code, "/note"),
        ErrorCode::HandoverIdInvalid => invalid::<HandoverId>(),
        ErrorCode::RenewalKeyInvalid => Issue::at(code, "/key"),
        ErrorCode::RenewalPointInvalid => Issue::at(code, "/at"),
        ErrorCode::WebhookUrlInvalid => url_refused("leads to an address that is not public"),
        ErrorCode::WebhookEventsInvalid => Issue::at(code, "/events").because("are missing"),
        ErrorCode::WebhookIdInvalid => invalid::<WebhookId>(),
        ErrorCode::TooManyWebhooks => Issue::new(code).because(WEBHOOKS_MAX.to_string()),
        _ => Issue::new(code).because(LEFT_OPEN),
    };
    issue.into()
}

/// 1464 for a parameter that the operation has.
fn parameter_out_of_range(inputs: &[String]) -> Issue {
    let has = |name: &str| inputs.iter().any(|input| input == name);
    if has("per_page") {
        return out_of_range("per_page", "100", &PerPage::must());
    }
    if let Some(name) = ["dry_run", "now"].into_iter().find(|name| has(name)) {
        return out_of_range(name, "yes", flag::MUST);
    }
    let spaced = [(HeaderName::from_static("idempotency-key"), HeaderValue::from_static("one two"))];
    let read = IdempotencyHeader::read(&HeaderMap::from_iter(spaced)).of("", b"");
    read.err().unwrap_or_else(|| Issue::new(ErrorCode::ParameterOutOfRange))
}
