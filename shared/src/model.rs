//! The custom CSR and its legal states, and the custom certificate that closes its loop.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, Scope, TenantId},
};

/// Where a custom CSR stands. It is born `pending` and ends `active` or `failed`, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Accepted; key and CSR are still to be made.
    Pending,
    /// Key and CSR exist.
    Active,
    /// Generation was given up.
    Failed,
}

impl Status {
    /// Every status, in the order of a custom CSR's life.
    pub const ALL: &'static [Self] = &[Self::Pending, Self::Active, Self::Failed];

    /// The word that the API and the database use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Failed => "failed",
        }
    }

    /// Reads the word; none where it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.as_str() == text)
    }
}

/// Which key pair a custom CSR gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyType {
    /// RSA, 2048 bits, signing with SHA-256.
    #[default]
    Rsa2048,
    /// ECDSA on P-256, signing with SHA-256.
    P256v1,
}

impl KeyType {
    /// Every key type, the default first.
    pub const ALL: &'static [Self] = &[Self::Rsa2048, Self::P256v1];

    /// The word that the API and the database use, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa2048",
            Self::P256v1 => "p256v1",
        }
    }

    /// Reads the word, ASCII case ignored; none where it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key_type| key_type.as_str().eq_ignore_ascii_case(text))
    }
}

/// The subject of the certification request (RFC 2986), values as the tenant gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// C: ISO 3166-1 alpha-2, in the case it was given in.
    pub country: String,
    /// ST.
    pub state: String,
    /// L.
    pub locality: String,
    /// O.
    pub organization: String,
    /// OU.
    pub organizational_unit: Option<String>,
    /// CN.
    pub common_name: String,
}

/// A request for a custom CSR that passed every check of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomCsrRequest {
    /// The subject.
    pub subject: Subject,
    /// The tenant's own name for it.
    pub name: Option<String>,
    /// The tenant's own words on it.
    pub description: Option<String>,
    /// 1 to 100 names, as given.
    pub sans: Vec<String>,
    /// The key pair to make.
    pub key_type: KeyType,
}

/// A custom CSR as its tenant sees it. The private key is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomCsr {
    /// Its ID.
    pub id: CustomCsrId,
    /// The zone or account it was made in.
    pub scope: Scope,
    /// The account it was made in, or that its zone belonged to.
    pub account: Option<TenantId>,
    /// Where it stands.
    pub status: Status,
    /// Why it failed: nothing secret.
    pub error: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// What was asked for.
    pub request: CustomCsrRequest,
    /// The certification request, PEM with a newline at the end, once active.
    pub csr_pem: Option<String>,
    /// The custom CSR that this one is to replace, by a rekey. It may be gone.
    pub replaces: Option<CustomCsrId>,
    /// The certificates that use its private key, the oldest first.
    pub certificate_ids: Vec<CustomCertificateId>,
}

/// Declares an enum of words that the API and the database use.
macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ })+) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Reads the word; none where it is not one.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }

            /// Reads the word in any case.
            #[must_use]
            pub fn parse_any_case(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str().eq_ignore_ascii_case(text))
            }
        }
    )+ };
}

words! {
    /// How a chain is to be built, in the Cloudflare v4 API. A chain is put right, unless it is to be stored as it was sent.
    BundleMethod {
        /// For the oldest clients.
        Ubiquitous = "ubiquitous",
        /// In the Cloudflare v4 API, the shortest chain; here the same as `ubiquitous`.
        Optimal = "optimal",
        /// As it was sent.
        Force = "force",
    }

    /// What a certificate is for, in the Cloudflare v4 API. It is stored and returned.
    CertificateType {
        /// For clients that name the host.
        SniCustom = "sni_custom",
        /// For clients that do not.
        LegacyCustom = "legacy_custom",
    }

    /// Where a custom certificate stands. Only the first two occur here; the others are those of the Cloudflare v4 API.
    CertificateStatus {
        /// In use.
        Active = "active",
        /// Over.
        Expired = "expired",
        /// Never here: what is deleted is gone.
        Deleted = "deleted",
        /// Never here: a certificate is active at once.
        Pending = "pending",
        /// Never here.
        Initializing = "initializing",
    }
}

/// A certificate is valid until the end of the second that its notAfter names (RFC 5280, 4.1.2.5).
pub const LAST_SECOND: Duration = Duration::from_secs(1);

/// What is stored of a chain of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateChain {
    /// The certificates that a server sends, in PEM, the leaf first. Lists leave it unread, and empty.
    pub pem: String,
    /// The leaf's names.
    pub hosts: Vec<String>,
    /// Who issued the leaf.
    pub issuer: String,
    /// The leaf's signature algorithm, such as `SHA256WithRSA`.
    pub signature: String,
    /// The leaf's notAfter.
    pub not_after: Timestamp,
    /// What else is shown of the leaf.
    pub leaf: LeafDetails,
}

/// What is shown of a leaf beside what decides something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafDetails {
    /// Its notBefore.
    pub not_before: Timestamp,
    /// Its serial number in hexadecimal, two digits an octet, with a minus sign where a CA made it negative.
    pub serial_number: String,
    /// SHA-256 of it in DER, in hexadecimal.
    pub fingerprint_sha256: String,
}

/// A custom certificate as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomCertificate {
    /// Its ID.
    pub id: CustomCertificateId,
    /// The zone that it belongs to.
    pub zone: Scope,
    /// The custom CSR whose private key it is for.
    pub custom_csr_id: CustomCsrId,
    /// The chain.
    pub chain: CertificateChain,
    /// How the chain is to be built.
    pub bundle_method: BundleMethod,
    /// What it is for.
    pub certificate_type: CertificateType,
    /// Its place among others, in the Cloudflare v4 API. It is stored and returned.
    pub priority: u16,
    /// When it was first uploaded.
    pub uploaded_at: Timestamp,
    /// When it last changed.
    pub modified_at: Timestamp,
}

impl CustomCertificate {
    /// Where it stands at this time.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> CertificateStatus {
        if now < self.chain.not_after.plus(LAST_SECOND) { CertificateStatus::Active } else { CertificateStatus::Expired }
    }
}
