//! What is done with custom certificates, each in one transaction.

use async_trait::async_trait;

use super::{
    CertificateChange, CertificatePage, CertificateQuery, CertificateRefusal, CertificateStore, Export, MAX_CERTIFICATES_OF_CSR,
    MatchedCertificate, NewCertificate, NewChain, Repeat, Replacement, StartedExport, UsableCsr,
    rows::{chain_values, first_valid, leaf_pem, with_host},
    sql::{
        ALL_CERTIFICATES, DELETE_EXPIRED_CERTIFICATES, EDIT_CERTIFICATE, EXPORT_CERTIFICATE, FIND_CERTIFICATE_OF_CSR, FIND_USABLE_CSR,
        FIND_USABLE_CSR_BY_KEY, INSERT_CERTIFICATE, LOCK_CERTIFICATE, LOCK_USED_CSR, MATCHED_CERTIFICATES, MATCHED_WITH_CERTIFICATE,
        REPLACE_CERTIFICATE, SEALED_OF_CSR, STANDING_OF_CHAIN, seen_by,
    },
};
use crate::{
    audit::{Action, Actor, NewEntry, Replaced},
    clock::Timestamp,
    custom_certificate::CustomCertificate,
    custom_csr::Status,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    renewal::RenewalStatus,
    storage::{
        Dialect, IdempotencyKey, SqlStore, StoreError,
        engine::{Lent, Reader, Sql, values},
    },
};

/// Which certificate a chain is to be that of.
#[derive(Clone, Copy)]
struct Target<'a> {
    zone: &'a Scope,
    id: CustomCertificateId,
    is_new: bool,
}

impl<DB: Dialect> Sql<DB> {
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
            let grant = self.grant_of(tx, target.zone).await?;
            if !grant.is_some_and(|grant| grant.granted) {
                return Ok(Some(CertificateRefusal::NotGranted));
            }
        }
        let usable = self.fetch(tx, FIND_USABLE_CSR, values![csr.clone(), zone.clone(), target.id.to_string()]).await?;
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
    pub(in crate::storage) async fn delete_expired_certificates(
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
        // The key first: a repeated request is answered as the first one was, whatever was stored since.
        if let Some(refusal) = self.claim_key(&mut tx, new, now).await? {
            return Ok(Some(refusal));
        }
        if let Some(refusal) = self.admit(&mut tx, Target { zone: &new.zone, id: new.id, is_new: true }, &new.chain).await? {
            return Ok(Some(refusal));
        }
        if let Some(handover) = new.handover
            && !self.use_handover(&mut tx, handover, actor, now).await?
        {
            return Ok(Some(CertificateRefusal::HandoverEnded));
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
    async fn find_usable_csr(
        &self,
        zone: &Scope,
        id: CustomCsrId,
        present: Option<CustomCertificateId>,
    ) -> Result<Option<UsableCsr>, StoreError> {
        let present = present.map(|id| id.to_string());
        let rows = self.sql.rows(FIND_USABLE_CSR, values![id.to_string(), zone.to_string(), present]).await?;
        rows.first().map(|row| Reader::<DB>(row).usable_csr()).transpose()
    }

    async fn find_usable_csr_by_key(&self, zone: &Scope, spki_sha256: &[u8; 32]) -> Result<Option<UsableCsr>, StoreError> {
        let rows = self.sql.rows(FIND_USABLE_CSR_BY_KEY, values![spki_sha256.to_vec(), zone.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).usable_csr()).transpose()
    }

    async fn check_certificate(&self, new: &NewCertificate) -> Result<Option<CertificateRefusal>, StoreError> {
        let mut tx = self.sql.begin_read().await?;
        self.sql.refusal(&mut tx, Target { zone: &new.zone, id: new.id, is_new: true }, &new.chain).await
    }

    async fn check_replacement(
        &self,
        zone: &Scope,
        id: CustomCertificateId,
        chain: &NewChain,
    ) -> Result<Option<CertificateRefusal>, StoreError> {
        let mut tx = self.sql.begin_read().await?;
        self.sql.refusal(&mut tx, Target { zone, id, is_new: false }, chain).await
    }

    async fn find_upload(&self, zone: &Scope, key: &IdempotencyKey, now: Timestamp) -> Result<Option<Repeat>, StoreError> {
        self.sql.find_upload(zone, key, now).await
    }

    async fn accept_certificate(
        &self,
        new: &NewCertificate,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CertificateRefusal>, StoreError> {
        match self.sql.insert_certificate(new, actor, now).await {
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
        let mut tx = self.sql.begin_write().await?;
        let (statement, entry) = match &change.chain {
            Some(chain) => {
                if let Some(refusal) = self.sql.admit(&mut tx, Target { zone, id, is_new: false }, chain).await? {
                    return Ok(Replacement::Refused(refusal));
                }
                let locked = self.sql.fetch(&mut tx, LOCK_CERTIFICATE, values.clone()).await?;
                let Some(old) = locked.first() else { return Ok(Replacement::NotFound) };
                if let Some(handover) = change.handover
                    && !self.sql.use_handover(&mut tx, handover, actor, now).await?
                {
                    return Ok(Replacement::Refused(CertificateRefusal::HandoverEnded));
                }
                let old = Reader::<DB>(old).parsed("custom_csr_id", CustomCsrId::parse)?;
                values.extend(chain_values(chain)?);
                (REPLACE_CERTIFICATE, NewEntry::replace(id, zone, Replaced { old, new: chain.custom_csr_id }))
            }
            None => (EDIT_CERTIFICATE, NewEntry::custom_certificate(Action::Edit, id, zone)),
        };
        values.extend(settings);
        let rows = self.sql.fetch(&mut tx, statement, values).await?;
        let Some(row) = rows.first() else { return Ok(Replacement::NotFound) };
        let replaced = Reader::<DB>(row).certificate()?;
        if change.chain.is_some() && replaced.renewal.status == RenewalStatus::Done {
            self.sql.revoke_handover_of_renewal(&mut tx, id, actor, now).await?;
        }
        self.sql.record(&mut tx, &entry, actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(Replacement::Replaced(Box::new(replaced)))
    }

    async fn find_certificate(&self, scope: &Scope, id: CustomCertificateId) -> Result<Option<CustomCertificate>, StoreError> {
        let rows = self.sql.rows(seen_by(scope).find, values![scope.to_string(), id.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).certificate()).transpose()
    }

    async fn list_certificates(&self, scope: &Scope, query: &CertificateQuery) -> Result<CertificatePage, StoreError> {
        let mut tx = self.sql.begin_read().await?;
        let status = query.status.map(|status| status.as_str().to_owned());
        let mut filter = values![
            scope.to_string(),
            status,
            first_valid(query.now),
            query.custom_csr_id.map(|id| id.to_string()),
            query.host.as_deref().map(with_host).transpose()?,
            query.expires_before.map(Timestamp::micros),
        ];
        let total = self.sql.total(&mut tx, seen_by(scope).count, filter.clone()).await?.unsigned_abs();
        let offset = i64::from(query.page.saturating_sub(1)) * i64::from(query.per_page);
        filter.extend(values![i64::from(query.per_page), offset]);
        let rows = self.sql.fetch(&mut tx, seen_by(scope).page, filter).await?;
        let rows = rows.iter().map(|row| Reader::<DB>(row).certificate()).collect::<Result<_, _>>()?;
        Ok(CertificatePage { rows, total })
    }

    async fn delete_certificate(&self, scope: &Scope, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        let deleted = self.sql.fetch(&mut tx, seen_by(scope).delete, values![scope.to_string(), id.to_string()]).await?;
        let Some(row) = deleted.first() else { return Ok(false) };
        let zone = Reader::<DB>(row).scope()?;
        self.sql.record(&mut tx, &NewEntry::custom_certificate(Action::Delete, id, &zone), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(true)
    }

    async fn list_all_certificates(&self, after: Option<CustomCertificateId>, limit: u32) -> Result<Vec<CustomCertificate>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = self.sql.rows(ALL_CERTIFICATES, values![after, i64::from(limit)]).await?;
        rows.iter().map(|row| Reader::<DB>(row).certificate()).collect()
    }

    async fn list_matched_certificates(&self, of: Option<CustomCertificateId>) -> Result<Vec<MatchedCertificate>, StoreError> {
        let rows = match of {
            Some(id) => self.sql.rows(MATCHED_WITH_CERTIFICATE, values![id.to_string()]).await?,
            None => self.sql.rows(MATCHED_CERTIFICATES, values![]).await?,
        };
        rows.iter().map(|row| Reader::<DB>(row).matched_certificate()).collect()
    }

    async fn start_export(&self, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<StartedExport, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        let rows = self.sql.fetch(&mut tx, EXPORT_CERTIFICATE, values![id.to_string()]).await?;
        let Some(certificate) = rows.first().map(|row| Reader::<DB>(row).certificate()).transpose()? else {
            return Ok(StartedExport::NotFound);
        };
        let key = values![certificate.custom_csr_id.to_string(), certificate.zone.to_string()];
        let sealed = self.sql.fetch(&mut tx, SEALED_OF_CSR, key).await?;
        let sealed = sealed.first().map(|row| Reader::<DB>(row).sealed()).transpose()?;
        let Some(sealed) = sealed else {
            return Ok(StartedExport::NotUsable { zone: certificate.zone, custom_csr_id: certificate.custom_csr_id });
        };
        self.sql.record(&mut tx, &NewEntry::custom_certificate(Action::Export, id, &certificate.zone), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(StartedExport::Recorded(Box::new(Export { certificate, sealed })))
    }
}
