//! The custom certificate, which a CA issued for a custom CSR.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    renewal::Renewal,
    words::words,
};

words! {
    /// How to build the chain (Cloudflare v4 API). The chain is put right, except by `force`.
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

    /// The status of a custom certificate. Only the first two occur here; the others are part of the Cloudflare v4 API.
    CertificateStatus {
        /// In use.
        Active = "active",
        /// Expired.
        Expired = "expired",
        /// Never occurs: the row of a deleted certificate is gone.
        Deleted = "deleted",
        /// Never occurs: a certificate is active immediately.
        Pending = "pending",
        /// Never occurs.
        Initializing = "initializing",
    }
}

/// A certificate is valid until the end of the second that its notAfter names (RFC 5280, 4.1.2.5).
pub const LAST_SECOND: Duration = Duration::from_secs(1);

/// What is stored of a chain of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateChain {
    /// The certificates that a server sends, in PEM, the leaf first. Lists do not read it: it is empty there.
    pub pem: String,
    /// The leaf's names.
    pub hosts: Vec<String>,
    /// Who issued the leaf.
    pub issuer: String,
    /// The leaf's signature algorithm, such as `SHA256WithRSA`.
    pub signature: String,
    /// The leaf's notAfter.
    pub not_after: Timestamp,
    /// More about the leaf, for display only.
    pub leaf: LeafDetails,
}

/// More about a leaf, for display only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafDetails {
    /// Its notBefore.
    pub not_before: Timestamp,
    /// Its serial number in hexadecimal, two digits an octet, with a minus sign where a CA made it negative.
    pub serial_number: String,
    /// SHA-256 of its DER, in hexadecimal.
    pub fingerprint_sha256: String,
}

/// A custom certificate as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomCertificate {
    /// Its ID.
    pub id: CustomCertificateId,
    /// Its zone.
    pub zone: Scope,
    /// The custom CSR whose private key it belongs to.
    pub custom_csr_id: CustomCsrId,
    /// The chain.
    pub chain: CertificateChain,
    /// How to build the chain.
    pub bundle_method: BundleMethod,
    /// What it is for.
    pub certificate_type: CertificateType,
    /// Its priority among the zone's certificates (Cloudflare v4 API). It is stored and returned, and has no effect.
    pub priority: u16,
    /// When it was first uploaded.
    pub uploaded_at: Timestamp,
    /// When it last changed.
    pub modified_at: Timestamp,
    /// The state of its renewal.
    pub renewal: Renewal,
}

impl CustomCertificate {
    /// Its status at this time.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> CertificateStatus {
        if now < self.chain.not_after.plus(LAST_SECOND) { CertificateStatus::Active } else { CertificateStatus::Expired }
    }
}
