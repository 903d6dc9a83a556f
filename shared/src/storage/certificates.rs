//! Custom certificates: stored with the custom CSR whose private key they are for.

use async_trait::async_trait;

use super::{
    Dialect, SealedRow, SqlStore,
    lent::Lent,
    rows::Reader,
    statements as sql,
    value::{Value, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    error::StoreError,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    model::{BundleMethod, CertificateChain, CertificateStatus, CertificateType, CustomCertificate, LAST_SECOND, Status},
};

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
}

/// What is to become of a custom certificate.
#[derive(Debug, Clone)]
pub struct CertificateChange {
    /// Another chain.
    pub chain: Option<NewChain>,
    /// Another way to build the chain.
    pub bundle_method: Option<BundleMethod>,
    /// Another purpose.
    pub certificate_type: Option<CertificateType>,
}

/// What became of a custom certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// It is this now.
    Replaced(Box<CustomCertificate>),
    /// There is no such custom certificate in this zone (1481).
    NotFound,
    /// The custom CSR went away since the chain was judged (1431).
    CsrGone,
}

/// One page of a zone's certificates, the newest first.
#[derive(Debug, Clone)]
pub struct CertificateQuery {
    /// The page, from 1.
    pub page: u32,
    /// Rows a page.
    pub per_page: u32,
    /// Only those with this status at `now`.
    pub status: Option<CertificateStatus>,
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
/// A custom CSR that is deleted and one that gets a certificate take turns on its row: never is there a certificate without its custom CSR.
#[async_trait]
pub trait CertificateStore: Send + Sync {
    /// The custom CSR with this ID where this zone may use it: its own, or that of the account that it was granted with.
    async fn find_usable_csr(&self, zone: &Scope, id: CustomCsrId) -> Result<Option<UsableCsr>, StoreError>;

    /// Stores a certificate; false where its custom CSR went away since it was judged.
    async fn accept_certificate(&self, new: &NewCertificate, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// Changes a certificate, under the same ID.
    async fn replace_certificate(
        &self,
        zone: &Scope,
        id: CustomCertificateId,
        change: &CertificateChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Replacement, StoreError>;

    /// The certificate with this ID in this zone.
    async fn find_certificate(&self, zone: &Scope, id: CustomCertificateId) -> Result<Option<CustomCertificate>, StoreError>;

    /// One page of a zone's certificates; empty past the last page.
    async fn list_certificates(&self, zone: &Scope, query: &CertificateQuery) -> Result<CertificatePage, StoreError>;

    /// Deletes a certificate; false where there is none.
    async fn delete_certificate(&self, zone: &Scope, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// The next `limit` certificates of all zones, by ID, after this one.
    async fn list_all_certificates(&self, after: Option<CustomCertificateId>, limit: u32) -> Result<Vec<CustomCertificate>, StoreError>;

    /// Records the export of a certificate, and then gives out what it needs. The private key is that of a custom CSR which the zone may
    /// use: whoever can write to the database alone must not get another tenant's key this way.
    async fn start_export(&self, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<StartedExport, StoreError>;
}

/// The first notAfter, in microseconds, that is not over.
fn first_valid(now: Timestamp) -> i64 {
    now.minus(LAST_SECOND).micros().saturating_add(1)
}

/// The parameters of a chain, in the order of the columns.
fn chain_values(new: &NewChain) -> Result<Vec<Value>, StoreError> {
    let CertificateChain { pem, hosts, issuer, signature, not_after } = new.chain.clone();
    let hosts = serde_json::to_string(&hosts).map_err(|error| StoreError::Internal(error.to_string()))?;
    Ok(values![new.custom_csr_id.to_string(), pem, hosts, issuer, signature, not_after.micros()])
}

impl<DB: Dialect> SqlStore<DB> {
    /// Holds a custom CSR in place until the transaction ends; false where it went away.
    async fn lock_used_csr(&self, tx: &mut Lent<DB>, new: &NewChain) -> Result<bool, StoreError> {
        let values = values![new.custom_csr_id.to_string(), new.spki_sha256.to_vec()];
        Ok(self.execute(tx, sql::LOCK_USED_CSR, values).await? > 0)
    }

    /// Deletes a custom CSR's certificates that are over; false where others are left.
    pub(super) async fn delete_expired_certificates(
        &self,
        tx: &mut Lent<DB>,
        id: CustomCsrId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let expired = self.fetch(tx, sql::DELETE_EXPIRED_CERTIFICATES, values![id.to_string(), first_valid(now)]).await?;
        for row in &expired {
            let row = Reader::<DB>(row);
            self.record(tx, &NewEntry::custom_certificate(Action::Delete, row.certificate_id()?, &row.scope()?), actor, now).await?;
        }
        Ok(self.fetch(tx, sql::FIND_CERTIFICATE_OF_CSR, values![id.to_string()]).await?.is_empty())
    }

    async fn insert_certificate(&self, new: &NewCertificate, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        if !self.lock_used_csr(&mut tx, &new.chain).await? {
            return Ok(false);
        }
        let mut values = values![new.id.to_string(), new.zone.to_string()];
        values.extend(chain_values(&new.chain)?);
        values.extend(values![new.bundle_method.as_str(), new.certificate_type.as_str(), now.micros()]);
        self.execute(&mut tx, sql::INSERT_CERTIFICATE, values).await?;
        self.record(&mut tx, &NewEntry::custom_certificate(Action::Upload, new.id, &new.zone), actor, now).await?;
        self.commit(tx).await?;
        Ok(true)
    }
}

#[async_trait]
impl<DB: Dialect> CertificateStore for SqlStore<DB> {
    async fn find_usable_csr(&self, zone: &Scope, id: CustomCsrId) -> Result<Option<UsableCsr>, StoreError> {
        let rows = self.rows(sql::FIND_USABLE_CSR, values![id.to_string(), zone.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).usable_csr()).transpose()
    }

    async fn accept_certificate(&self, new: &NewCertificate, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        match self.insert_certificate(new, actor, now).await {
            // The commit's answer was lost: what is there now decides, seen by a fresh connection.
            Err(StoreError::Ambiguous(lost)) => match self.find_certificate(&new.zone, new.id).await {
                Ok(Some(_)) => Ok(true),
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
            now.micros(),
        ];
        let mut values = values![id.to_string(), zone.to_string()];
        let mut tx = self.begin_write().await?;
        let (statement, action) = match &change.chain {
            Some(chain) => {
                if !self.lock_used_csr(&mut tx, chain).await? {
                    return Ok(Replacement::CsrGone);
                }
                values.extend(chain_values(chain)?);
                (sql::REPLACE_CERTIFICATE, Action::Replace)
            }
            None => (sql::EDIT_CERTIFICATE, Action::Edit),
        };
        values.extend(settings);
        let rows = self.fetch(&mut tx, statement, values).await?;
        let Some(row) = rows.first() else { return Ok(Replacement::NotFound) };
        let replaced = Reader::<DB>(row).certificate()?;
        self.record(&mut tx, &NewEntry::custom_certificate(action, id, zone), actor, now).await?;
        self.commit(tx).await?;
        Ok(Replacement::Replaced(Box::new(replaced)))
    }

    async fn find_certificate(&self, zone: &Scope, id: CustomCertificateId) -> Result<Option<CustomCertificate>, StoreError> {
        let rows = self.rows(sql::FIND_CERTIFICATE, values![id.to_string(), zone.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).certificate()).transpose()
    }

    async fn list_certificates(&self, zone: &Scope, query: &CertificateQuery) -> Result<CertificatePage, StoreError> {
        let mut tx = self.begin_read().await?;
        let status = query.status.map(|status| status.as_str().to_owned());
        let mut filter = values![zone.to_string(), status, first_valid(query.now)];
        let count = self.fetch(&mut tx, sql::COUNT_CERTIFICATES, filter.clone()).await?;
        let total = count.first().map(|row| Reader::<DB>(row).int("total")).transpose()?.unwrap_or_default().unsigned_abs();
        let offset = i64::from(query.page.saturating_sub(1)) * i64::from(query.per_page);
        filter.extend(values![i64::from(query.per_page), offset]);
        let rows = self.fetch(&mut tx, sql::PAGE_OF_CERTIFICATES, filter).await?;
        let rows = rows.iter().map(|row| Reader::<DB>(row).certificate()).collect::<Result<_, _>>()?;
        Ok(CertificatePage { rows, total })
    }

    async fn delete_certificate(&self, zone: &Scope, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin_write().await?;
        if self.execute(&mut tx, sql::DELETE_CERTIFICATE, values![id.to_string(), zone.to_string()]).await? == 0 {
            return Ok(false);
        }
        self.record(&mut tx, &NewEntry::custom_certificate(Action::Delete, id, zone), actor, now).await?;
        self.commit(tx).await?;
        Ok(true)
    }

    async fn list_all_certificates(&self, after: Option<CustomCertificateId>, limit: u32) -> Result<Vec<CustomCertificate>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = self.rows(sql::ALL_CERTIFICATES, values![after, i64::from(limit)]).await?;
        rows.iter().map(|row| Reader::<DB>(row).certificate()).collect()
    }

    async fn start_export(&self, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<StartedExport, StoreError> {
        let mut tx = self.begin_write().await?;
        let rows = self.fetch(&mut tx, sql::EXPORT_CERTIFICATE, values![id.to_string()]).await?;
        let Some(certificate) = rows.first().map(|row| Reader::<DB>(row).certificate()).transpose()? else {
            return Ok(StartedExport::NotFound);
        };
        let key = values![certificate.custom_csr_id.to_string(), certificate.zone.to_string()];
        let sealed = self.fetch(&mut tx, sql::SEALED_OF_CSR, key).await?;
        let sealed = sealed.first().map(|row| Reader::<DB>(row).sealed()).transpose()?;
        let Some(sealed) = sealed else {
            return Ok(StartedExport::NotUsable { zone: certificate.zone, custom_csr_id: certificate.custom_csr_id });
        };
        self.record(&mut tx, &NewEntry::custom_certificate(Action::Export, id, &certificate.zone), actor, now).await?;
        self.commit(tx).await?;
        Ok(StartedExport::Recorded(Box::new(Export { certificate, sealed })))
    }
}
