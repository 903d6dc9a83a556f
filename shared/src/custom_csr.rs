//! The custom CSR and its legal states.

use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, Scope, SetId, TenantId},
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
    /// ML-DSA-44 (FIPS 204, RFC 9881), which a quantum computer does not break.
    MlDsa44,
}

impl KeyType {
    /// Every key type, the default first.
    pub const ALL: &'static [Self] = &[Self::Rsa2048, Self::P256v1, Self::Rsa3072, Self::Rsa4096, Self::P384, Self::Ed25519, Self::MlDsa44];

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
            Self::MlDsa44 => "mldsa44",
        }
    }

    /// The bits of the modulus, or `None` if it is no type of RSA key.
    #[must_use]
    pub const fn rsa_bits(self) -> Option<usize> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa3072 => Some(3072),
            Self::Rsa4096 => Some(4096),
            Self::P256v1 | Self::P384 | Self::Ed25519 | Self::MlDsa44 => None,
        }
    }

    /// Whether a key takes tens of milliseconds or more to make, rather than a fraction of one.
    #[must_use]
    pub const fn takes_long(self) -> bool {
        self.rsa_bits().is_some()
    }

    /// Parses the word, ignoring ASCII case. Returns `None` if there is no such key type.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key_type| key_type.as_str().eq_ignore_ascii_case(text))
    }
}

/// The key types that requests may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTypes(Vec<KeyType>);

impl Default for KeyTypes {
    fn default() -> Self {
        Self::new([KeyType::Rsa2048, KeyType::P256v1])
    }
}

impl KeyTypes {
    /// These, in the order of [`KeyType::ALL`].
    #[must_use]
    pub fn new(key_types: impl IntoIterator<Item = KeyType>) -> Self {
        let given: Vec<_> = key_types.into_iter().collect();
        Self(KeyType::ALL.iter().copied().filter(|key_type| given.contains(key_type)).collect())
    }

    /// Whether a request may ask for this one.
    #[must_use]
    pub fn contains(&self, key_type: KeyType) -> bool {
        self.0.contains(&key_type)
    }

    /// Their words.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|key_type| key_type.as_str())
    }

    /// What the text of 1417 says of them, as in `‘rsa2048’ or ‘p256v1’`.
    #[must_use]
    pub fn quoted(&self) -> String {
        let quoted: Vec<_> = self.words().map(|word| format!("‘{word}’")).collect();
        match quoted.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => quoted.concat(),
        }
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
    /// The set that it is one of, if any.
    pub set_id: Option<SetId>,
    /// The certificates that use its private key, the oldest first.
    pub certificate_ids: Vec<CustomCertificateId>,
}
