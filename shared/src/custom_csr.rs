//! The custom CSR and its legal states.

use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, Scope, TenantId},
};

/// The status of a custom CSR. It starts as `pending` and becomes `active` or `failed`, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Accepted. The key and the CSR are not made yet.
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

    /// Parses the word. Returns `None` if there is no such status.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.as_str() == text)
    }
}

/// The type of a custom CSR's key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyType {
    /// RSA, 2048 bits, signing with SHA-256.
    #[default]
    Rsa2048,
    /// ECDSA on P-256, signing with SHA-256.
    P256v1,
    /// RSA, 3072 bits, signing with SHA-256.
    Rsa3072,
    /// RSA, 4096 bits, signing with SHA-256.
    Rsa4096,
    /// ECDSA on P-384, signing with SHA-384.
    P384,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

impl KeyType {
    /// Every key type, the default first.
    pub const ALL: &'static [Self] = &[Self::Rsa2048, Self::P256v1, Self::Rsa3072, Self::Rsa4096, Self::P384, Self::Ed25519];

    /// The word that the API and the database use, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa2048",
            Self::P256v1 => "p256v1",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The bits of the modulus, or `None` if it is no type of RSA key.
    #[must_use]
    pub const fn rsa_bits(self) -> Option<usize> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa3072 => Some(3072),
            Self::Rsa4096 => Some(4096),
            Self::P256v1 | Self::P384 | Self::Ed25519 => None,
        }
    }

    /// Parses the word, ignoring ASCII case. Returns `None` if there is no such key type.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key_type| key_type.as_str().eq_ignore_ascii_case(text))
    }
}

/// The subject of the certification request (RFC 2986), values as the tenant gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// C: ISO 3166-1 alpha-2, in the case in which it was given.
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
    /// The tenant's own description.
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
    /// The zone or account in which it was made.
    pub scope: Scope,
    /// The account in which it was made, or to which its zone belonged.
    pub account: Option<TenantId>,
    /// Its status.
    pub status: Status,
    /// Why it failed. It holds no secret.
    pub error: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The request.
    pub request: CustomCsrRequest,
    /// The certification request, PEM with a newline at the end, once active.
    pub csr_pem: Option<String>,
    /// The custom CSR that this one replaces, if a rekey made it. It may be deleted.
    pub replaces: Option<CustomCsrId>,
    /// The certificates that use its private key, the oldest first.
    pub certificate_ids: Vec<CustomCertificateId>,
}
