//! Custom certificates: stored with the custom CSR whose private key they are for.

mod idempotency;
mod rows;
pub(super) mod sql;
mod store;

use async_trait::async_trait;

#[cfg(test)]
pub(super) use self::{idempotency::STATEMENTS as KEY_STATEMENTS, sql::STATEMENTS};
use crate::{
    audit::Actor,
    clock::Timestamp,
    custom_certificate::{BundleMethod, CertificateChain, CertificateStatus, CertificateType, CustomCertificate},
    custom_csr::{KeyType, Status},
    ids::{CustomCertificateId, CustomCsrId, HandoverId, Scope, SetId},
    storage::{IdempotencyKey, SealedRow, StoreError},
};

/// How many custom certificates one custom CSR may have, those of all zones together.
pub const MAX_CERTIFICATES_OF_CSR: u32 = 20;

/// A custom CSR that a zone may use, as far as certificates are judged by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableCsr {
    /// Its ID.
    pub id: CustomCsrId,
    /// Where it stands.
    pub status: Status,
    /// Its SANs, as given.
    pub sans: Vec<String>,
    /// SHA-256 of its SubjectPublicKeyInfo, once active.
    pub spki_sha256: Option<[u8; 32]>,
}

/// A chain that was judged against a custom CSR.
#[derive(Debug, Clone)]
pub struct NewChain {
    /// The custom CSR.
    pub custom_csr_id: CustomCsrId,
    /// SHA-256 of the SubjectPublicKeyInfo that it was judged against.
    pub spki_sha256: [u8; 32],
    /// What is stored.
    pub chain: CertificateChain,
}

/// A custom certificate about to be stored.
#[derive(Debug, Clone)]
pub struct NewCertificate {
    /// Its ID, chosen by the caller.
    pub id: CustomCertificateId,
    /// The zone.
    pub zone: Scope,
    /// The chain.
    pub chain: NewChain,
    /// How the chain is to be built.
    pub bundle_method: BundleMethod,
    /// What it is for.
    pub certificate_type: CertificateType,
    /// Its place among others.
    pub priority: u16,
    /// The key that makes a repeated request harmless.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The hand-over link that it comes through, and ends.
    pub handover: Option<HandoverId>,
}

/// What is to become of a custom certificate.
#[derive(Debug, Clone, Default)]
pub struct CertificateChange {
    /// Another chain.
    pub chain: Option<NewChain>,
    /// Another way to build the chain.
    pub bundle_method: Option<BundleMethod>,
    /// Another purpose.
    pub certificate_type: Option<CertificateType>,
    /// Another place among others.
    pub priority: Option<u16>,
    /// The hand-over link that the chain comes through, and ends.
    pub handover: Option<HandoverId>,
}

/// What became of a custom certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// It is this now.
    Replaced(Box<CustomCertificate>),
    /// There is no such custom certificate in this zone (1481).
    NotFound,
    /// It stays as it was.
    Refused(CertificateRefusal),
}

/// Why a chain is not stored with a custom CSR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateRefusal {
    /// The zone is not granted custom CSRs (1404). Only new certificates need it.
    NotGranted,
    /// The custom CSR went away since the chain was judged, or the zone may no longer use it (1431).
    CsrGone,
    /// The leaf is stored already with this custom CSR in this zone, as this custom certificate (1482).
    Stored(CustomCertificateId),
    /// The custom CSR has [`MAX_CERTIFICATES_OF_CSR`] custom certificates (1483).
    CsrFull,
    /// Its Idempotency-Key came before: [`CertificateStore::find_upload`] says with what.
    KeyTaken,
    /// As many Idempotency-Keys of the zone are remembered as may be (1470).
    TooManyKeys,
    /// The hand-over link that it comes through has ended.
    HandoverEnded,
}

/// What an upload is whose Idempotency-Key came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The same request again, which made this custom certificate. It may be deleted by now.
    Replayed(CustomCertificateId),
    /// Another request (1466).
    KeyReused,
}

/// One page of the certificates that a zone or an account sees, the newest first.
#[derive(Debug, Clone)]
pub struct CertificateQuery {
    /// The page, from 1.
    pub page: u32,
    /// Rows a page.
    pub per_page: u32,
    /// Only those with this status at `now`.
    pub status: Option<CertificateStatus>,
    /// Only those that use this custom CSR.
    pub custom_csr_id: Option<CustomCsrId>,
    /// Only those with this host, in lower case, among theirs.
    pub host: Option<String>,
    /// Only those whose notAfter is before this.
    pub expires_before: Option<Timestamp>,
    /// The time that decides what is expired.
    pub now: Timestamp,
}

/// A page's rows and how many rows all pages have together.
#[derive(Debug, Clone)]
pub struct CertificatePage {
    /// The rows, in order.
    pub rows: Vec<CustomCertificate>,
    /// Rows on all pages.
    pub total: u64,
}

/// A certificate of a custom CSR that is of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedCertificate {
    /// Its ID.
    pub id: CustomCertificateId,
    /// Its zone.
    pub zone: Scope,
    /// When it last changed.
    pub modified_at: Timestamp,
    /// The custom CSR whose private key it belongs to.
    pub custom_csr_id: CustomCsrId,
    /// The type of that key.
    pub key_type: KeyType,
    /// The set.
    pub set_id: SetId,
}

/// What became of an attempt to begin an export.
#[derive(Debug, Clone)]
pub enum StartedExport {
    /// It is recorded, and may begin.
    Recorded(Box<Export>),
    /// There is no such custom certificate.
    NotFound,
    /// The custom CSR that the certificate names is not active, or is none that the certificate's zone may use.
    NotUsable {
        /// The zone of the certificate.
        zone: Scope,
        /// The custom CSR.
        custom_csr_id: CustomCsrId,
    },
}

/// What an export writes to files.
#[derive(Debug, Clone)]
pub struct Export {
    /// The certificate.
    pub certificate: CustomCertificate,
    /// Its private key, sealed.
    pub sealed: SealedRow,
}

/// The part of the storage that is custom certificates.
///
/// A zone sees the certificates that lie in it, an account those that use its custom CSRs, in whatever zone they lie. A zone may use a
/// custom CSR of its own, and one of the account that it was granted with, while both are granted; a certificate that is there goes on with
/// the one that it uses, as long as the zone belongs to that account and the account is granted. The transaction that writes asks for that
/// again. A custom CSR that is deleted and one that gets a certificate take turns on its row: never is there a certificate without its custom
/// CSR, nor one more than [`MAX_CERTIFICATES_OF_CSR`].
#[async_trait]
pub trait CertificateStore: Send + Sync {
    /// The custom CSR with this ID where this zone may use it for a new certificate, or for the one that is `present` in it.
    async fn find_usable_csr(
        &self,
        zone: &Scope,
        id: CustomCsrId,
        present: Option<CustomCertificateId>,
    ) -> Result<Option<UsableCsr>, StoreError>;

    /// The active custom CSR with a public key of this digest where this zone may use it, its own before its account's.
    async fn find_usable_csr_by_key(&self, zone: &Scope, spki_sha256: &[u8; 32]) -> Result<Option<UsableCsr>, StoreError>;

    /// Why a certificate would not be stored as it stands now; none: it would.
    async fn check_certificate(&self, new: &NewCertificate) -> Result<Option<CertificateRefusal>, StoreError>;

    /// Why a certificate would not get this chain as it stands now; none: it would.
    async fn check_replacement(
        &self,
        zone: &Scope,
        id: CustomCertificateId,
        chain: &NewChain,
    ) -> Result<Option<CertificateRefusal>, StoreError>;

    /// What this key of the zone made, or `None` if it is new or too old to count at `now`.
    async fn find_upload(&self, zone: &Scope, key: &IdempotencyKey, now: Timestamp) -> Result<Option<Repeat>, StoreError>;

    /// Stores a certificate, and its Idempotency-Key with it, or says why not; none: it is stored.
    async fn accept_certificate(
        &self,
        new: &NewCertificate,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CertificateRefusal>, StoreError>;

    /// Changes a certificate, under the same ID.
    async fn replace_certificate(
        &self,
        zone: &Scope,
        id: CustomCertificateId,
        change: &CertificateChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Replacement, StoreError>;

    /// The certificate with this ID that this zone or account sees.
    async fn find_certificate(&self, scope: &Scope, id: CustomCertificateId) -> Result<Option<CustomCertificate>, StoreError>;

    /// One page of the certificates that a zone or an account sees, without their PEM; empty past the last page.
    async fn list_certificates(&self, scope: &Scope, query: &CertificateQuery) -> Result<CertificatePage, StoreError>;

    /// Deletes a certificate that this zone or account sees; false where there is none. The audit entry is in the certificate's zone.
    async fn delete_certificate(&self, scope: &Scope, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// The next `limit` certificates of all zones, by ID, after this one, without their PEM.
    async fn list_all_certificates(&self, after: Option<CustomCertificateId>, limit: u32) -> Result<Vec<CustomCertificate>, StoreError>;

    /// The certificates of all sets; or those that lie in the zone of one certificate and are of its set, that one included.
    async fn list_matched_certificates(&self, of: Option<CustomCertificateId>) -> Result<Vec<MatchedCertificate>, StoreError>;

    /// Records the export of a certificate, and then gives out what it needs. The private key is that of a custom CSR which the zone may
    /// use: whoever can write to the database alone must not get another tenant's key this way.
    async fn start_export(&self, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<StartedExport, StoreError>;
}
