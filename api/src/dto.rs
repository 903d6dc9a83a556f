//! What goes over the wire, and the schemas that the document shows.

use poem_openapi::{Enum, Object};
use serde::Serialize;
use shared::{
    custom_csr::{self, CustomCsr},
    ids::Scope,
    storage::ScopeGrant,
};

pub use self::certificates::{CustomCertificateDto, CustomCertificateEditInput, CustomCertificateInput, DeletedCustomCertificate};
use crate::http::envelope::Message;

mod certificates;

/// The key pair to make.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// RSA, 2048 bits, signing with SHA-256.
    Rsa2048,
    /// ECDSA on P-256, signing with SHA-256.
    P256v1,
}

impl From<custom_csr::KeyType> for KeyType {
    fn from(key_type: custom_csr::KeyType) -> Self {
        match key_type {
            custom_csr::KeyType::Rsa2048 => Self::Rsa2048,
            custom_csr::KeyType::P256v1 => Self::P256v1,
        }
    }
}

/// Where a custom CSR stands.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
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

/// A request for a custom CSR. Nothing is trimmed; unknown members are ignored; `null` is the same as absent.
#[derive(Debug, Object)]
#[oai(rename = "CustomCsrRequest")]
pub struct CustomCsrInput {
    /// Two-letter code of the country (ISO 3166-1 alpha-2, any case), or `XX`.
    #[oai(validator(min_length = 2, max_length = 2))]
    pub country: String,
    /// State or province.
    #[oai(validator(min_length = 1, max_length = 128))]
    pub state: String,
    /// City or place.
    #[oai(validator(min_length = 1, max_length = 128))]
    pub locality: String,
    /// Organization.
    #[oai(validator(min_length = 1, max_length = 64))]
    pub organization: String,
    /// Organizational unit.
    #[oai(validator(max_length = 64))]
    pub organizational_unit: Option<String>,
    /// Common name. Public CAs want it to be one of the SANs.
    #[oai(validator(min_length = 1, max_length = 64))]
    pub common_name: String,
    /// Your own name for it.
    #[oai(validator(max_length = 255))]
    pub name: Option<String>,
    /// Your own words on it.
    #[oai(validator(max_length = 1024))]
    pub description: Option<String>,
    /// Subject alternative names: host names that can be registered, no IP addresses.
    #[oai(validator(min_items = 1, max_items = 100))]
    pub sans: Vec<String>,
    /// The key pair to make, any case.
    #[oai(default = "default_key_type")]
    pub key_type: KeyType,
}

const fn default_key_type() -> KeyType {
    KeyType::Rsa2048
}

/// A custom CSR. The private key never leaves the service.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "CustomCsr")]
pub struct CustomCsrDto {
    /// Its ID, a UUID.
    pub id: String,
    /// Where it stands.
    pub status: Status,
    /// What went wrong; only where `status` is `failed`.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was accepted: RFC 3339, UTC.
    pub created_at: String,
    /// When it last changed: RFC 3339, UTC.
    pub updated_at: String,
    /// The account that it, or its zone, belongs to.
    pub account_tag: Option<String>,
    /// The zone it was made in; null for an account's.
    pub zone_id: Option<String>,
    /// Country.
    pub country: String,
    /// State or province.
    pub state: String,
    /// City or place.
    pub locality: String,
    /// Organization.
    pub organization: String,
    /// Organizational unit.
    pub organizational_unit: Option<String>,
    /// Common name.
    pub common_name: String,
    /// Your own name for it.
    pub name: Option<String>,
    /// Your own words on it.
    pub description: Option<String>,
    /// Subject alternative names, as given.
    pub sans: Vec<String>,
    /// The key pair.
    pub key_type: KeyType,
    /// The certification request, PEM (PKCS#10); null until `status` is `active`.
    pub csr: Option<String>,
    /// The custom CSR that this one is to replace: set by a rekey. It may be gone.
    pub replaces: Option<String>,
    /// The custom certificates that use its private key, the oldest first.
    pub custom_certificate_ids: Vec<String>,
}

impl From<CustomCsr> for CustomCsrDto {
    fn from(csr: CustomCsr) -> Self {
        let CustomCsr { id, scope, account, status, error, created_at, updated_at, request, csr_pem, replaces, certificate_ids } = csr;
        let custom_csr::CustomCsrRequest { subject, name, description, sans, key_type } = request;
        let custom_csr::Subject { country, state, locality, organization, organizational_unit, common_name } = subject;
        let zone_id = match scope {
            Scope::Zone(id) => Some(id.to_string()),
            Scope::Account(_) => None,
        };
        Self {
            id: id.to_string(),
            status: status.into(),
            error,
            created_at: created_at.rfc3339(),
            updated_at: updated_at.rfc3339(),
            account_tag: account.map(|id| id.to_string()),
            zone_id,
            country,
            state,
            locality,
            organization,
            organizational_unit,
            common_name,
            name,
            description,
            sans,
            key_type: key_type.into(),
            csr: csr_pem,
            replaces: replaces.map(|id| id.to_string()),
            custom_certificate_ids: certificate_ids.iter().map(ToString::to_string).collect(),
        }
    }
}

/// New words on a custom CSR. An absent member keeps what is there, `null` and the empty string clear it.
#[derive(Debug, Object)]
#[oai(rename = "CustomCsrEdit")]
pub struct CustomCsrEditInput {
    /// Your own name for it.
    #[oai(validator(max_length = 255))]
    pub name: Option<String>,
    /// Your own words on it.
    #[oai(validator(max_length = 1024))]
    pub description: Option<String>,
}

/// What differs from the old custom CSR beside the key. What is absent is copied, and so is what is `null`; an empty `name` or `description`
/// clears it; unknown members are ignored.
#[derive(Debug, Object)]
#[oai(rename = "CustomCsrRekey")]
pub struct CustomCsrRekeyInput {
    /// The key pair to make, any case.
    pub key_type: Option<KeyType>,
    /// Your own name for it.
    #[oai(validator(max_length = 255))]
    pub name: Option<String>,
    /// Your own words on it.
    #[oai(validator(max_length = 1024))]
    pub description: Option<String>,
}

/// How many custom CSRs there may be, and are.
#[derive(Debug, Object, Serialize)]
pub struct Quota {
    /// Those that there may be; 0 where no quota is allocated.
    pub allocated: u32,
    /// Those that there are, failed ones included.
    pub used: u32,
}

impl From<Option<ScopeGrant>> for Quota {
    fn from(grant: Option<ScopeGrant>) -> Self {
        let allocated = grant.as_ref().filter(|grant| grant.granted).and_then(|grant| grant.quota).unwrap_or_default();
        Self { allocated, used: grant.map_or(0, |grant| grant.used) }
    }
}

/// The ID of what was deleted.
#[derive(Debug, Object, Serialize)]
pub struct DeletedCustomCsr {
    /// Its ID.
    pub id: String,
}

/// Where a page stands in its list.
#[derive(Debug, Object, Serialize)]
pub struct ResultInfo {
    /// The page, from 1.
    pub page: u32,
    /// Entries a page.
    pub per_page: u32,
    /// Entries on this page.
    pub count: u64,
    /// Entries on all pages.
    pub total_count: u64,
    /// Pages; 0 where there is nothing.
    pub total_pages: u64,
}

impl ResultInfo {
    /// Of page `page`, which has `count` of `total` entries.
    #[must_use]
    pub fn new(page: u32, per_page: u32, count: usize, total: u64) -> Self {
        Self { page, per_page, count: count as u64, total_count: total, total_pages: total.div_ceil(u64::from(per_page)) }
    }
}

/// Declares the envelope around one kind of result.
macro_rules! envelopes {
    ($($(#[$doc:meta])* $name:ident($result:ty) { $($(#[$extra_doc:meta])* $extra:ident: $extra_type:ty),* })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Object, Serialize)]
        pub struct $name {
            /// Always true.
            pub success: bool,
            /// Always empty.
            pub errors: Vec<Message>,
            /// Warnings.
            pub messages: Vec<Message>,
            /// The result.
            pub result: $result,
            $($(#[$extra_doc])* pub $extra: $extra_type,)*
        }

        impl $name {
            /// A success with these warnings.
            #[must_use]
            pub fn new(result: $result, messages: Vec<Message> $(, $extra: $extra_type)*) -> Self {
                Self { success: true, errors: Vec::new(), messages, result $(, $extra)* }
            }
        }
    )+ };
}

envelopes! {
    /// One custom CSR.
    CustomCsrResponse(CustomCsrDto) {}
    /// A page of custom CSRs.
    CustomCsrListResponse(Vec<CustomCsrDto>) {
        /// Where this page stands.
        result_info: ResultInfo
    }
    /// What was deleted.
    DeletedCustomCsrResponse(DeletedCustomCsr) {}
    /// The quota of a zone or an account.
    QuotaResponse(Quota) {}
    /// One custom certificate.
    CustomCertificateResponse(CustomCertificateDto) {}
    /// A page of custom certificates.
    CustomCertificateListResponse(Vec<CustomCertificateDto>) {
        /// Where this page stands.
        result_info: ResultInfo
    }
    /// What was deleted.
    DeletedCustomCertificateResponse(DeletedCustomCertificate) {}
}

#[cfg(test)]
mod tests;
