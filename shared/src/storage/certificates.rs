//! Custom certificates: stored with the custom CSR whose private key they are for.

use async_trait::async_trait;

use super::{
    Dialect, SealedRow, SqlStore, StoreError,
    lent::Lent,
    row::{Reader, corrupt},
    scopes::FIND_SCOPE,
    value::{Value, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    custom_certificate::{BundleMethod, CertificateChain, CertificateStatus, CertificateType, CustomCertificate, LAST_SECOND, LeafDetails},
    custom_csr::Status,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    x509::certificate::leaf_details,
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
/// custom CSR of its own, and one of the account that it was granted with, while both are granted; the transaction that writes asks for that
/// again. A custom CSR that is deleted and one that gets a certificate take turns on its row: never is there a certificate without its custom
/// CSR, nor one more than [`MAX_CERTIFICATES_OF_CSR`].
#[async_trait]
pub trait CertificateStore: Send + Sync {
    /// The custom CSR with this ID where this zone may use it.
    async fn find_usable_csr(&self, zone: &Scope, id: CustomCsrId) -> Result<Option<UsableCsr>, StoreError>;

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

    /// Stores a certificate, or says why not; none: it is stored.
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

    /// Records the export of a certificate, and then gives out what it needs. The private key is that of a custom CSR which the zone may
    /// use: whoever can write to the database alone must not get another tenant's key this way.
    async fn start_export(&self, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<StartedExport, StoreError>;
}

/// The columns that a [`CustomCertificate`] is read from. `not_before`, `serial_number` and `fingerprint_sha256` describe the leaf where
/// `described_at` is `modified_at`; else a version that did not know them wrote the row, and the leaf itself is asked.
macro_rules! columns {
    () => {
        columns!("chain_pem")
    };
    ($chain_pem:literal) => {
        concat!(
            "id, scope, custom_csr_id, ",
            $chain_pem,
            ", hosts, issuer, signature, not_after, not_before, serial_number, fingerprint_sha256, bundle_method, certificate_type, priority, \
             uploaded_at, modified_at, described_at"
        )
    };
}

/// The same for lists, which show nothing of the PEM: up to 64 KiB a row stay unread, unless the leaf has to be asked.
macro_rules! listed_columns {
    () => {
        columns!("CASE WHEN described_at = modified_at THEN '' ELSE chain_pem END AS chain_pem")
    };
}

/// Whether the zone `$2` may use a custom CSR: one of its own, or one of the account that it was granted with, while both are granted.
macro_rules! may_be_used {
    () => {
        "(scope = $2 OR scope = (SELECT account.scope FROM scopes AS tenant \
         JOIN scopes AS account ON account.scope = 'accounts/' || tenant.account_id \
         WHERE tenant.scope = $2 AND tenant.granted = 1 AND account.granted = 1))"
    };
}

const FIND_USABLE_CSR: &str = concat!("SELECT id, scope, status, sans, spki_sha256 FROM custom_csrs WHERE id = $1 AND ", may_be_used!());
const FIND_USABLE_CSR_BY_KEY: &str = concat!(
    "SELECT id, scope, status, sans, spki_sha256 FROM custom_csrs WHERE spki_sha256 = $1 AND status = 'active' AND ",
    may_be_used!(),
    " ORDER BY CASE WHEN scope = $2 THEN 0 ELSE 1 END, created_at DESC LIMIT 1"
);
/// Keeps an active custom CSR from being deleted, and from getting another certificate, until the transaction ends. Another key is not the
/// one that was checked.
const LOCK_USED_CSR: &str = "UPDATE custom_csrs SET updated_at = updated_at WHERE id = $1 AND status = 'active' AND spki_sha256 = $2";
/// How the certificates of custom CSR `$1` stand to the chain that begins with `$4` and is to be that of certificate `$3` in zone `$2`: another
/// one in the zone with the same leaf, how many there are, counted up to `$5`, and whether `$3` is among them.
const STANDING_OF_CHAIN: &str = "SELECT \
    (SELECT MIN(id) FROM custom_certificates WHERE custom_csr_id = $1 AND scope = $2 AND id <> $3 \
     AND substr(chain_pem, 1, length(CAST($4 AS TEXT))) = $4) AS stored, \
    (SELECT COUNT(*) FROM (SELECT id FROM custom_certificates WHERE custom_csr_id = $1 LIMIT $5) AS counted) AS total, \
    (SELECT COUNT(*) FROM custom_certificates WHERE id = $3 AND custom_csr_id = $1) AS present";
const INSERT_CERTIFICATE: &str = concat!(
    "INSERT INTO custom_certificates (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $15)"
);
const REPLACE_CERTIFICATE: &str = concat!(
    "UPDATE custom_certificates SET custom_csr_id = $3, chain_pem = $4, hosts = $5, issuer = $6, signature = $7, not_after = $8, \
     not_before = $9, serial_number = $10, fingerprint_sha256 = $11, bundle_method = COALESCE($12, bundle_method), \
     certificate_type = COALESCE($13, certificate_type), priority = COALESCE($14, priority), modified_at = $15, described_at = $15 \
     WHERE id = $1 AND scope = $2 RETURNING ",
    columns!()
);
const EDIT_CERTIFICATE: &str = concat!(
    "UPDATE custom_certificates SET bundle_method = COALESCE($3, bundle_method), certificate_type = COALESCE($4, certificate_type), \
     priority = COALESCE($5, priority), modified_at = $6, described_at = CASE WHEN described_at = modified_at THEN $6 ELSE described_at END \
     WHERE id = $1 AND scope = $2 RETURNING ",
    columns!()
);
/// Those of a custom CSR that are over: `$2` is the first notAfter that is not.
const DELETE_EXPIRED_CERTIFICATES: &str = "DELETE FROM custom_certificates WHERE custom_csr_id = $1 AND not_after < $2 RETURNING id, scope";
const FIND_CERTIFICATE_OF_CSR: &str = "SELECT id FROM custom_certificates WHERE custom_csr_id = $1 LIMIT 1";
/// The next `$2` certificates of all zones after the ID `$1`.
const ALL_CERTIFICATES: &str = concat!("SELECT ", listed_columns!(), " FROM custom_certificates WHERE id > $1 ORDER BY id LIMIT $2");
const EXPORT_CERTIFICATE: &str = concat!("SELECT ", columns!(), " FROM custom_certificates WHERE id = $1");
/// The sealed private key of custom CSR `$1`, where the zone `$2` may use it.
const SEALED_OF_CSR: &str = concat!(
    "SELECT id, scope, spki_sha256, master_key_id, sealed_private_key FROM custom_csrs WHERE id = $1 AND status = 'active' AND ",
    may_be_used!()
);

/// The statements about the certificates that one kind of scope, `$1`, sees.
struct Seen {
    /// The one with the ID `$2`.
    find: &'static str,
    /// Likewise.
    delete: &'static str,
    /// Those with the status `$2`, where `$3` is the first notAfter that is not over, of the custom CSR `$4`, with a pattern `$5` among their
    /// hosts, and a notAfter before `$6`; null for any of them leaves it out.
    count: &'static str,
    /// Likewise, `$7` of them after the first `$8`.
    page: &'static str,
}

macro_rules! seen {
    ($is_seen:literal) => {
        Seen {
            find: concat!("SELECT ", columns!(), " FROM custom_certificates WHERE ", $is_seen, " AND id = $2"),
            delete: concat!("DELETE FROM custom_certificates WHERE ", $is_seen, " AND id = $2 RETURNING scope"),
            count: concat!("SELECT COUNT(*) AS total ", seen!(@filter $is_seen)),
            page: concat!(
                "SELECT ", listed_columns!(), " ", seen!(@filter $is_seen), " ORDER BY uploaded_at DESC, id DESC LIMIT $7 OFFSET $8"
            ),
        }
    };
    (@filter $is_seen:literal) => {
        concat!(
            "FROM custom_certificates WHERE ",
            $is_seen,
            " AND (CAST($2 AS TEXT) IS NULL OR ($2 = 'active' AND not_after >= $3) OR ($2 = 'expired' AND not_after < $3)) \
             AND (CAST($4 AS TEXT) IS NULL OR custom_csr_id = $4) AND (CAST($5 AS TEXT) IS NULL OR lower(',' || substr(hosts, 2)) LIKE $5 ESCAPE '!') \
             AND (CAST($6 AS BIGINT) IS NULL OR not_after < $6)"
        )
    };
}

const SEEN_BY_ZONE: Seen = seen!("scope = $1");
const SEEN_BY_ACCOUNT: Seen = seen!("custom_csr_id IN (SELECT id FROM custom_csrs WHERE scope = $1)");

const fn seen_by(scope: &Scope) -> &'static Seen {
    match scope {
        Scope::Zone(_) => &SEEN_BY_ZONE,
        Scope::Account(_) => &SEEN_BY_ACCOUNT,
    }
}

/// All of the above, for the test that prepares them.
#[cfg(test)]
pub(super) const ALL: &[&str] = &[
    FIND_USABLE_CSR,
    FIND_USABLE_CSR_BY_KEY,
    LOCK_USED_CSR,
    STANDING_OF_CHAIN,
    INSERT_CERTIFICATE,
    REPLACE_CERTIFICATE,
    EDIT_CERTIFICATE,
    DELETE_EXPIRED_CERTIFICATES,
    FIND_CERTIFICATE_OF_CSR,
    ALL_CERTIFICATES,
    EXPORT_CERTIFICATE,
    SEALED_OF_CSR,
    SEEN_BY_ZONE.find,
    SEEN_BY_ZONE.delete,
    SEEN_BY_ZONE.count,
    SEEN_BY_ZONE.page,
    SEEN_BY_ACCOUNT.find,
    SEEN_BY_ACCOUNT.delete,
    SEEN_BY_ACCOUNT.count,
    SEEN_BY_ACCOUNT.page,
];

/// The first notAfter, in microseconds, that is not over.
fn first_valid(now: Timestamp) -> i64 {
    now.minus(LAST_SECOND).micros().saturating_add(1)
}

/// The parameters of a chain, in the order of the columns.
fn chain_values(new: &NewChain) -> Result<Vec<Value>, StoreError> {
    let CertificateChain { pem, hosts, issuer, signature, not_after, leaf } = new.chain.clone();
    let LeafDetails { not_before, serial_number, fingerprint_sha256 } = leaf;
    let hosts = json(&hosts)?;
    let csr = new.custom_csr_id.to_string();
    Ok(values![csr, pem, hosts, issuer, signature, not_after.micros(), not_before.micros(), serial_number, fingerprint_sha256])
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Internal(error.to_string()))
}

/// The pattern of LIKE for a JSON array of strings with this one in it, where a comma stands for the bracket: nowhere else does a quotation
/// mark follow a comma.
fn with_host(host: &str) -> Result<String, StoreError> {
    let escaped = json(host)?.replace('!', "!!").replace('%', "!%").replace('_', "!_");
    Ok(format!("%,{escaped}%"))
}

/// The leaf of a chain that is stored here, in the encoding that all of them have.
fn leaf_pem(chain_pem: &str) -> &str {
    chain_pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap_or_default()
}

impl<DB: Dialect> Reader<'_, DB> {
    fn certificate_id(&self) -> Result<CustomCertificateId, StoreError> {
        self.parsed("id", CustomCertificateId::parse)
    }

    fn certificate(&self) -> Result<CustomCertificate, StoreError> {
        let time = |column| self.int(column).map(Timestamp::from_micros);
        Ok(CustomCertificate {
            id: self.certificate_id()?,
            zone: self.scope()?,
            custom_csr_id: self.parsed("custom_csr_id", CustomCsrId::parse)?,
            chain: CertificateChain {
                pem: self.text("chain_pem")?,
                hosts: self.parsed("hosts", |json| serde_json::from_str(json).ok())?,
                issuer: self.text("issuer")?,
                signature: self.text("signature")?,
                not_after: time("not_after")?,
                leaf: self.leaf()?,
            },
            bundle_method: self.parsed("bundle_method", BundleMethod::parse)?,
            certificate_type: self.parsed("certificate_type", CertificateType::parse)?,
            priority: u16::try_from(self.int("priority")?).map_err(|_| corrupt("priority"))?,
            uploaded_at: time("uploaded_at")?,
            modified_at: time("modified_at")?,
        })
    }

    fn leaf(&self) -> Result<LeafDetails, StoreError> {
        if self.optional_int("described_at")? == Some(self.int("modified_at")?) {
            return Ok(LeafDetails {
                not_before: self.int("not_before").map(Timestamp::from_micros)?,
                serial_number: self.text("serial_number")?,
                fingerprint_sha256: self.text("fingerprint_sha256")?,
            });
        }
        self.parsed("chain_pem", leaf_details)
    }

    fn usable_csr(&self) -> Result<UsableCsr, StoreError> {
        let spki = DB::blob(self.0, "spki_sha256").map_err(|_| corrupt("spki_sha256"))?;
        Ok(UsableCsr {
            id: self.custom_csr_id()?,
            status: self.parsed("status", Status::parse)?,
            sans: self.parsed("sans", |json| serde_json::from_str(json).ok())?,
            spki_sha256: spki.map(|spki| spki.try_into().map_err(|_| corrupt("spki_sha256"))).transpose()?,
        })
    }
}

/// Which certificate a chain is to be that of.
#[derive(Clone, Copy)]
struct Target<'a> {
    zone: &'a Scope,
    id: CustomCertificateId,
    is_new: bool,
}

impl<DB: Dialect> SqlStore<DB> {
    /// Holds a custom CSR in place until the transaction ends, so that nobody else gives it a certificate or deletes it; then judges the chain.
    async fn admit(&self, tx: &mut Lent<DB>, target: Target<'_>, new: &NewChain) -> Result<Option<CertificateRefusal>, StoreError> {
        let values = values![new.custom_csr_id.to_string(), new.spki_sha256.to_vec()];
        let is_held = self.execute(tx, LOCK_USED_CSR, values).await? > 0;
        Ok(self.refusal(tx, target, new).await?.or_else(|| (!is_held).then_some(CertificateRefusal::CsrGone)))
    }

    /// Why a chain may not be stored, by what this transaction sees.
    async fn refusal(&self, tx: &mut Lent<DB>, target: Target<'_>, new: &NewChain) -> Result<Option<CertificateRefusal>, StoreError> {
        let (zone, csr) = (target.zone.to_string(), new.custom_csr_id.to_string());
        if target.is_new {
            let grant = self.fetch(tx, FIND_SCOPE, values![zone.clone()]).await?;
            let grant = grant.first().map(|row| Reader::<DB>(row).grant()).transpose()?;
            if !grant.is_some_and(|grant| grant.granted) {
                return Ok(Some(CertificateRefusal::NotGranted));
            }
        }
        let usable = self.fetch(tx, FIND_USABLE_CSR, values![csr.clone(), zone.clone()]).await?;
        let usable = usable.first().map(|row| Reader::<DB>(row).usable_csr()).transpose()?;
        if !usable.is_some_and(|usable| usable.status == Status::Active && usable.spki_sha256 == Some(new.spki_sha256)) {
            return Ok(Some(CertificateRefusal::CsrGone));
        }
        let most = i64::from(MAX_CERTIFICATES_OF_CSR);
        let values = values![csr, zone, target.id.to_string(), leaf_pem(&new.chain.pem), most];
        let standing = self.fetch(tx, STANDING_OF_CHAIN, values).await?;
        let Some(row) = standing.first() else { return Err(StoreError::Internal("a row was expected".to_owned())) };
        let row = Reader::<DB>(row);
        if let Some(stored) = row.optional("stored", CustomCertificateId::parse)? {
            return Ok(Some(CertificateRefusal::Stored(stored)));
        }
        let is_one_more = row.int("present")? == 0;
        Ok((is_one_more && row.int("total")? >= most).then_some(CertificateRefusal::CsrFull))
    }

    /// Deletes a custom CSR's certificates that are over; false where others are left.
    pub(super) async fn delete_expired_certificates(
        &self,
        tx: &mut Lent<DB>,
        id: CustomCsrId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let expired = self.fetch(tx, DELETE_EXPIRED_CERTIFICATES, values![id.to_string(), first_valid(now)]).await?;
        for row in &expired {
            let row = Reader::<DB>(row);
            self.record(tx, &NewEntry::custom_certificate(Action::Delete, row.certificate_id()?, &row.scope()?), actor, now).await?;
        }
        Ok(self.fetch(tx, FIND_CERTIFICATE_OF_CSR, values![id.to_string()]).await?.is_empty())
    }

    async fn insert_certificate(
        &self,
        new: &NewCertificate,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CertificateRefusal>, StoreError> {
        let mut tx = self.begin_write().await?;
        if let Some(refusal) = self.admit(&mut tx, Target { zone: &new.zone, id: new.id, is_new: true }, &new.chain).await? {
            return Ok(Some(refusal));
        }
        let mut values = values![new.id.to_string(), new.zone.to_string()];
        values.extend(chain_values(&new.chain)?);
        values.extend(values![new.bundle_method.as_str(), new.certificate_type.as_str(), i64::from(new.priority), now.micros()]);
        self.execute(&mut tx, INSERT_CERTIFICATE, values).await?;
        self.record(&mut tx, &NewEntry::custom_certificate(Action::Upload, new.id, &new.zone), actor, now).await?;
        self.commit(tx).await?;
        Ok(None)
    }
}

#[async_trait]
impl<DB: Dialect> CertificateStore for SqlStore<DB> {
    async fn find_usable_csr(&self, zone: &Scope, id: CustomCsrId) -> Result<Option<UsableCsr>, StoreError> {
        let rows = self.rows(FIND_USABLE_CSR, values![id.to_string(), zone.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).usable_csr()).transpose()
    }

    async fn find_usable_csr_by_key(&self, zone: &Scope, spki_sha256: &[u8; 32]) -> Result<Option<UsableCsr>, StoreError> {
        let rows = self.rows(FIND_USABLE_CSR_BY_KEY, values![spki_sha256.to_vec(), zone.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).usable_csr()).transpose()
    }

    async fn check_certificate(&self, new: &NewCertificate) -> Result<Option<CertificateRefusal>, StoreError> {
        let mut tx = self.begin_read().await?;
        self.refusal(&mut tx, Target { zone: &new.zone, id: new.id, is_new: true }, &new.chain).await
    }

    async fn check_replacement(
        &self,
        zone: &Scope,
        id: CustomCertificateId,
        chain: &NewChain,
    ) -> Result<Option<CertificateRefusal>, StoreError> {
        let mut tx = self.begin_read().await?;
        self.refusal(&mut tx, Target { zone, id, is_new: false }, chain).await
    }

    async fn accept_certificate(
        &self,
        new: &NewCertificate,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CertificateRefusal>, StoreError> {
        match self.insert_certificate(new, actor, now).await {
            // The commit's answer was lost: what is there now decides, seen by a fresh connection.
            Err(StoreError::Ambiguous(lost)) => match self.find_certificate(&new.zone, new.id).await {
                Ok(Some(_)) => Ok(None),
                Ok(None) | Err(_) => Err(StoreError::Ambiguous(lost)),
            },
            other => other,
        }
    }

    async fn replace_certificate(
        &self,
        zone: &Scope,
        id: CustomCertificateId,
        change: &CertificateChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Replacement, StoreError> {
        let settings = values![
            change.bundle_method.map(|method| method.as_str().to_owned()),
            change.certificate_type.map(|word| word.as_str().to_owned()),
            change.priority.map(i64::from),
            now.micros(),
        ];
        let mut values = values![id.to_string(), zone.to_string()];
        let mut tx = self.begin_write().await?;
        let (statement, action) = match &change.chain {
            Some(chain) => {
                if let Some(refusal) = self.admit(&mut tx, Target { zone, id, is_new: false }, chain).await? {
                    return Ok(Replacement::Refused(refusal));
                }
                values.extend(chain_values(chain)?);
                (REPLACE_CERTIFICATE, Action::Replace)
            }
            None => (EDIT_CERTIFICATE, Action::Edit),
        };
        values.extend(settings);
        let rows = self.fetch(&mut tx, statement, values).await?;
        let Some(row) = rows.first() else { return Ok(Replacement::NotFound) };
        let replaced = Reader::<DB>(row).certificate()?;
        self.record(&mut tx, &NewEntry::custom_certificate(action, id, zone), actor, now).await?;
        self.commit(tx).await?;
        Ok(Replacement::Replaced(Box::new(replaced)))
    }

    async fn find_certificate(&self, scope: &Scope, id: CustomCertificateId) -> Result<Option<CustomCertificate>, StoreError> {
        let rows = self.rows(seen_by(scope).find, values![scope.to_string(), id.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).certificate()).transpose()
    }

    async fn list_certificates(&self, scope: &Scope, query: &CertificateQuery) -> Result<CertificatePage, StoreError> {
        let mut tx = self.begin_read().await?;
        let status = query.status.map(|status| status.as_str().to_owned());
        let mut filter = values![
            scope.to_string(),
            status,
            first_valid(query.now),
            query.custom_csr_id.map(|id| id.to_string()),
            query.host.as_deref().map(with_host).transpose()?,
            query.expires_before.map(Timestamp::micros),
        ];
        let count = self.fetch(&mut tx, seen_by(scope).count, filter.clone()).await?;
        let total = count.first().map(|row| Reader::<DB>(row).int("total")).transpose()?.unwrap_or_default().unsigned_abs();
        let offset = i64::from(query.page.saturating_sub(1)) * i64::from(query.per_page);
        filter.extend(values![i64::from(query.per_page), offset]);
        let rows = self.fetch(&mut tx, seen_by(scope).page, filter).await?;
        let rows = rows.iter().map(|row| Reader::<DB>(row).certificate()).collect::<Result<_, _>>()?;
        Ok(CertificatePage { rows, total })
    }

    async fn delete_certificate(&self, scope: &Scope, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        let deleted = self.fetch(&mut tx, seen_by(scope).delete, values![scope.to_string(), id.to_string()]).await?;
        let Some(row) = deleted.first() else { return Ok(false) };
        let zone = Reader::<DB>(row).scope()?;
        self.record(&mut tx, &NewEntry::custom_certificate(Action::Delete, id, &zone), actor, now).await?;
        self.commit(tx).await?;
        Ok(true)
    }

    async fn list_all_certificates(&self, after: Option<CustomCertificateId>, limit: u32) -> Result<Vec<CustomCertificate>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = self.rows(ALL_CERTIFICATES, values![after, i64::from(limit)]).await?;
        rows.iter().map(|row| Reader::<DB>(row).certificate()).collect()
    }

    async fn start_export(&self, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<StartedExport, StoreError> {
        let mut tx = self.begin_write().await?;
        let rows = self.fetch(&mut tx, EXPORT_CERTIFICATE, values![id.to_string()]).await?;
        let Some(certificate) = rows.first().map(|row| Reader::<DB>(row).certificate()).transpose()? else {
            return Ok(StartedExport::NotFound);
        };
        let key = values![certificate.custom_csr_id.to_string(), certificate.zone.to_string()];
        let sealed = self.fetch(&mut tx, SEALED_OF_CSR, key).await?;
        let sealed = sealed.first().map(|row| Reader::<DB>(row).sealed()).transpose()?;
        let Some(sealed) = sealed else {
            return Ok(StartedExport::NotUsable { zone: certificate.zone, custom_csr_id: certificate.custom_csr_id });
        };
        self.record(&mut tx, &NewEntry::custom_certificate(Action::Export, id, &certificate.zone), actor, now).await?;
        self.commit(tx).await?;
        Ok(StartedExport::Recorded(Box::new(Export { certificate, sealed })))
    }
}
