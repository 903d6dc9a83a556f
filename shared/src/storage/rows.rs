//! Rows into domain types. A row that breaks the schema's promises is [`StoreError::Corrupt`], never a guess.

use super::{Dialect, Generation, MasterKeyRow, PoolKey, ScopeGrant, SealedRow};
use crate::{
    audit::{Actor, AuditScope, Entry, Via},
    clock::Timestamp,
    custom_csr::{CustomCsr, CustomCsrRequest, KeyType, Status, Subject},
    ids::{CustomCertificateId, CustomCsrId, Scope, TenantId},
    storage::StoreError,
};

/// Reads columns by name.
pub(super) struct Reader<'a, DB: Dialect>(pub &'a DB::Row);

pub(super) fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column}"))
}

impl<DB: Dialect> Reader<'_, DB> {
    pub fn optional_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        DB::text(self.0, column).map_err(|error| StoreError::Corrupt(format!("column {column}: {error}")))
    }

    pub fn text(&self, column: &str) -> Result<String, StoreError> {
        self.optional_text(column)?.ok_or_else(|| corrupt(column))
    }

    pub fn optional_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        DB::int(self.0, column).map_err(|error| StoreError::Corrupt(format!("column {column}: {error}")))
    }

    pub fn int(&self, column: &str) -> Result<i64, StoreError> {
        self.optional_int(column)?.ok_or_else(|| corrupt(column))
    }

    pub fn count(&self, column: &str) -> Result<u32, StoreError> {
        u32::try_from(self.int(column)?).map_err(|_| corrupt(column))
    }

    pub fn blob(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        DB::blob(self.0, column).ok().flatten().ok_or_else(|| corrupt(column))
    }

    pub fn parsed<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        parse(&self.text(column)?).ok_or_else(|| corrupt(column))
    }

    pub fn optional<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        self.optional_text(column)?.map(|text| parse(&text).ok_or_else(|| corrupt(column))).transpose()
    }

    pub fn custom_csr_id(&self) -> Result<CustomCsrId, StoreError> {
        self.parsed("id", CustomCsrId::parse)
    }

    pub fn scope(&self) -> Result<Scope, StoreError> {
        self.parsed("scope", Scope::parse)
    }

    pub fn account(&self) -> Result<Option<TenantId>, StoreError> {
        self.optional("account_id", TenantId::parse)
    }

    pub fn custom_csr(&self) -> Result<CustomCsr, StoreError> {
        Ok(CustomCsr {
            id: self.custom_csr_id()?,
            scope: self.scope()?,
            account: self.account()?,
            status: self.parsed("status", Status::parse)?,
            error: self.optional_text("error")?,
            created_at: Timestamp::from_micros(self.int("created_at")?),
            updated_at: Timestamp::from_micros(self.int("updated_at")?),
            request: CustomCsrRequest {
                subject: Subject {
                    country: self.text("country")?,
                    state: self.text("state")?,
                    locality: self.text("locality")?,
                    organization: self.text("organization")?,
                    organizational_unit: self.optional_text("organizational_unit")?,
                    common_name: self.text("common_name")?,
                },
                name: self.optional_text("name")?,
                description: self.optional_text("description")?,
                sans: self.parsed("sans", |json| serde_json::from_str(json).ok())?,
                key_type: self.parsed("key_type", KeyType::parse)?,
            },
            csr_pem: self.optional_text("csr_pem")?,
            replaces: self.optional("replaces", CustomCsrId::parse)?,
            certificate_ids: self
                .optional("certificate_ids", |ids| ids.split(',').map(CustomCertificateId::parse).collect())?
                .unwrap_or_default(),
        })
    }

    pub fn audit_entry(&self) -> Result<Entry, StoreError> {
        let (who, from) = (self.text("who")?, self.text("origin")?);
        let via = self.optional("via", Via::parse)?.unwrap_or_else(|| Via::of_old_entry(&who, &from));
        Ok(Entry {
            number: self.int("number")?,
            at: Timestamp::from_micros(self.int("at")?),
            actor: Actor { who, via, from, request_id: self.optional_text("request_id")? },
            action: self.text("action")?,
            resource: self.text("resource")?,
            scope: self.parsed("scope", AuditScope::parse)?,
        })
    }

    pub fn generation(&self) -> Result<Generation, StoreError> {
        let (attempts, starts) = (self.count("attempts")?, self.count("starts")?);
        Ok(Generation { custom_csr: self.custom_csr()?, attempts, starts, job_id: self.text("job_id")? })
    }

    pub fn grant(&self) -> Result<ScopeGrant, StoreError> {
        let quota = self.optional_int("quota")?.map(|quota| u32::try_from(quota).map_err(|_| corrupt("quota"))).transpose()?;
        Ok(ScopeGrant {
            scope: self.scope()?,
            granted: self.int("granted")? == 1,
            account: self.account()?,
            quota,
            used: self.count("used")?,
        })
    }

    pub fn master_key(&self) -> Result<MasterKeyRow, StoreError> {
        Ok(MasterKeyRow { id: self.text("id")?, current: self.int("current")? == 1, in_use: self.int("in_use")? == 1 })
    }

    fn spki_sha256(&self) -> Result<[u8; 32], StoreError> {
        self.blob("spki_sha256")?.try_into().map_err(|_| corrupt("spki_sha256"))
    }

    pub fn pool_key(&self, lease_id: String) -> Result<PoolKey, StoreError> {
        let (spki_sha256, sealed_private_key) = (self.spki_sha256()?, self.blob("sealed_private_key")?);
        Ok(PoolKey { id: self.text("id")?, lease_id, spki_sha256, sealed_private_key })
    }

    pub fn sealed(&self) -> Result<SealedRow, StoreError> {
        Ok(SealedRow {
            id: self.custom_csr_id()?,
            scope: self.scope()?,
            spki_sha256: self.spki_sha256()?,
            master_key_id: self.text("master_key_id")?,
            sealed_private_key: self.blob("sealed_private_key")?,
        })
    }
}
