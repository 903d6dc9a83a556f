//! Custom CSRs on the wire.

use poem_openapi::{Enum, Object, registry::MetaSchema};
use serde::Serialize;
use shared::{
    codes::ErrorCode,
    custom_csr::{self, CustomCsr},
    ids::{CustomCsrId, Scope},
};

use crate::http::{
    envelope::{Message, envelopes},
    mounted::Tag,
    path::PathId,
    types::{DateTime, Nullable, Uuid},
};

/// The tag of the operations.
pub const TAG: Tag = Tag("custom-csrs");

impl PathId for CustomCsrId {
    const INVALID: ErrorCode = ErrorCode::CustomCsrIdInvalid;
    const FORM: &'static str = "The ID of a custom CSR is a UUID: 36 characters, as in 0190163d-8694-7739-aea5-966c26f8ad91.";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn schema() -> MetaSchema {
        MetaSchema { description: Some("The custom CSR's ID."), ..MetaSchema::new_with_format("string", "uuid") }
    }
}

/// The key pair to make. The document names those that the service accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum)]
#[oai(rename = "KeyType", rename_all = "lowercase")]
pub enum NewKeyType {
    /// RSA, 2048 bits, signing with SHA-256.
    Rsa2048,
    /// ECDSA on P-256, signing with SHA-256.
    P256v1,
    /// RSA, 3072 bits, signing with SHA-256.
    Rsa3072,
    /// RSA, 4096 bits, signing with SHA-256.
    Rsa4096,
    /// ECDSA on P-384, signing with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// ML-DSA-44 (RFC 9881).
    MlDsa44,
}

/// A key pair. Custom CSRs keep theirs when the service no longer accepts its type.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename = "CustomCsrKeyType", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// RSA, 2048 bits, signing with SHA-256.
    Rsa2048,
    /// ECDSA on P-256, signing with SHA-256.
    P256v1,
    /// RSA, 3072 bits, signing with SHA-256.
    Rsa3072,
    /// RSA, 4096 bits, signing with SHA-256.
    Rsa4096,
    /// ECDSA on P-384, signing with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// ML-DSA-44 (RFC 9881).
    MlDsa44,
}

impl From<custom_csr::KeyType> for KeyType {
    fn from(key_type: custom_csr::KeyType) -> Self {
        match key_type {
            custom_csr::KeyType::Rsa2048 => Self::Rsa2048,
            custom_csr::KeyType::P256v1 => Self::P256v1,
            custom_csr::KeyType::Rsa3072 => Self::Rsa3072,
            custom_csr::KeyType::Rsa4096 => Self::Rsa4096,
            custom_csr::KeyType::P384 => Self::P384,
            custom_csr::KeyType::Ed25519 => Self::Ed25519,
            custom_csr::KeyType::MlDsa44 => Self::MlDsa44,
        }
    }
}

/// Where a custom CSR stands.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename = "CustomCsrStatus", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted; key and CSR are still to be made.
    Pending,
    /// Key and CSR exist.
    Active,
    /// Generation was given up; `error` says why.
    Failed,
}

impl From<custom_csr::Status> for Status {
    fn from(status: custom_csr::Status) -> Self {
        match status {
            custom_csr::Status::Pending => Self::Pending,
            custom_csr::Status::Active => Self::Active,
            custom_csr::Status::Failed => Self::Failed,
        }
    }
}

/// A custom CSR. The private key never leaves the service.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "CustomCsr")]
pub struct CustomCsrDto {
    /// Its ID.
    pub id: Uuid,
    /// Where it stands.
    pub status: Status,
    /// What went wrong; only if `status` is `failed`.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was accepted.
    pub created_at: DateTime,
    /// When it last changed.
    pub updated_at: DateTime,
    /// The account that it, or its zone, belongs to.
    pub account_tag: Nullable<String>,
    /// The zone it was made in; null for an account's.
    pub zone_id: Nullable<String>,
    /// Country.
    pub country: String,
    /// State or province.
    pub state: String,
    /// City or place.
    pub locality: String,
    /// Organization.
    pub organization: String,
    /// Organizational unit.
    pub organizational_unit: Nullable<String>,
    /// Common name.
    pub common_name: String,
    /// Your own name for it.
    pub name: Nullable<String>,
    /// A free-form description.
    pub description: Nullable<String>,
    /// Subject alternative names, as given.
    pub sans: Vec<String>,
    /// The key pair.
    pub key_type: KeyType,
    /// The certification request, PEM (PKCS#10); null until `status` is `active`.
    pub csr: Nullable<String>,
    /// The custom CSR that this one is to replace: set by a rekey. It may be gone.
    pub replaces: Nullable<Uuid>,
    /// The set that it is one of: custom CSRs that differ in their keys alone. Null if it is none of a set.
    pub set_id: Nullable<Uuid>,
    /// The custom certificates that use its private key, the oldest first.
    pub custom_certificate_ids: Vec<String>,
}

impl From<CustomCsr> for CustomCsrDto {
    fn from(csr: CustomCsr) -> Self {
        let CustomCsr { id, scope, account, status, error, created_at, updated_at, request, csr_pem, replaces, set_id, certificate_ids } =
            csr;
        let custom_csr::CustomCsrRequest { subject, name, description, sans, key_type } = request;
        let custom_csr::Subject { country, state, locality, organization, organizational_unit, common_name } = subject;
        let zone_id = match scope {
            Scope::Zone(id) => Some(id.to_string()),
            Scope::Account(_) => None,
        };
        Self {
            id: Uuid(id.to_string()),
            status: status.into(),
            error,
            created_at: DateTime(created_at.rfc3339()),
            updated_at: DateTime(updated_at.rfc3339()),
            account_tag: Nullable(account.map(|id| id.to_string())),
            zone_id: Nullable(zone_id),
            country,
            state,
            locality,
            organization,
            organizational_unit: Nullable(organizational_unit),
            common_name,
            name: Nullable(name),
            description: Nullable(description),
            sans,
            key_type: key_type.into(),
            csr: Nullable(csr_pem),
            replaces: Nullable(replaces.map(|id| Uuid(id.to_string()))),
            set_id: Nullable(set_id.map(|id| Uuid(id.to_string()))),
            custom_certificate_ids: certificate_ids.iter().map(ToString::to_string).collect(),
        }
    }
}

envelopes! {
    /// One custom CSR.
    CustomCsrResponse(CustomCsrDto) {}
}
