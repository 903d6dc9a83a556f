//! Master keys that the database remembers, and what they sealed.

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Reader, statements, values},
};
use crate::{
    clock::Timestamp,
    ids::{CustomCsrId, Scope},
};

/// A master key that the database remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyRow {
    /// Its ID.
    pub id: String,
    /// Whether new records are sealed with it.
    pub current: bool,
    /// Whether a custom CSR needs it. Pool keys do not count: they are made again.
    pub in_use: bool,
}

/// What became of an attempt to register a master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// It is the current one: the first that was ever registered, or registered before.
    Current,
    /// Another one, with this ID, is: nothing was changed.
    Other(String),
}

/// A sealed private key with all that it is bound to.
#[derive(Debug, Clone)]
pub struct SealedRow {
    /// The custom CSR's ID.
    pub id: CustomCsrId,
    /// Its scope.
    pub scope: Scope,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Which master key sealed it.
    pub master_key_id: String,
    /// The sealed private key.
    pub sealed_private_key: Vec<u8>,
}

/// The part of the storage that is master keys. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait MasterKeys: Send + Sync {
    /// The master keys that the database remembers, oldest first.
    async fn list_master_keys(&self) -> Result<Vec<MasterKeyRow>, StoreError>;

    /// Registers this master key if none was ever registered. The check and the registration are one transaction, and concurrent calls
    /// take turns: of several first starts, one wins.
    async fn register_master_key(&self, id: &str, now: Timestamp) -> Result<Registration, StoreError>;

    /// The next `limit` sealed records of all custom CSRs, by ID, after this one.
    async fn list_sealed(&self, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<SealedRow>, StoreError>;
}

statements! {
    LIST_MASTER_KEYS = "SELECT id, current, CAST(CASE WHEN EXISTS (SELECT 1 FROM custom_csrs \
        WHERE master_key_id = master_keys.id) THEN 1 ELSE 0 END AS BIGINT) AS in_use FROM master_keys ORDER BY created_at, id";
    /// Until the transaction ends (`mkey` in ASCII). On SQLite one transaction at a time writes anyway.
    LOCK_MASTER_KEYS { postgres: "SELECT CAST(1 AS BIGINT) AS locked FROM pg_advisory_xact_lock(1835754873)",
    };
    REGISTER_MASTER_KEY = "INSERT INTO master_keys (id, current, created_at) VALUES ($1, 1, $2)";
    LIST_SEALED = "SELECT id, scope, spki_sha256, master_key_id, sealed_private_key FROM custom_csrs \
        WHERE id > $1 AND sealed_private_key IS NOT NULL ORDER BY id LIMIT $2";
}

impl<DB: Dialect> Reader<'_, DB> {
    fn master_key(&self) -> Result<MasterKeyRow, StoreError> {
        Ok(MasterKeyRow { id: self.text("id")?, current: self.int("current")? == 1, in_use: self.int("in_use")? == 1 })
    }

    pub(super) fn sealed(&self) -> Result<SealedRow, StoreError> {
        Ok(SealedRow {
            id: self.parsed("id", CustomCsrId::parse)?,
            scope: self.scope()?,
            spki_sha256: self.digest("spki_sha256")?,
            master_key_id: self.text("master_key_id")?,
            sealed_private_key: self.blob("sealed_private_key")?,
        })
    }
}

#[async_trait]
impl<DB: Dialect> MasterKeys for SqlStore<DB> {
    async fn list_master_keys(&self) -> Result<Vec<MasterKeyRow>, StoreError> {
        self.sql.rows(LIST_MASTER_KEYS, values![]).await?.iter().map(|row| Reader::<DB>(row).master_key()).collect()
    }

    async fn register_master_key(&self, id: &str, now: Timestamp) -> Result<Registration, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        self.sql.fetch(&mut tx, LOCK_MASTER_KEYS, values![]).await?;
        let known = self.sql.fetch(&mut tx, LIST_MASTER_KEYS, values![]).await?;
        let known = known.iter().map(|row| Reader::<DB>(row).master_key()).collect::<Result<Vec<_>, _>>()?;
        if known.is_empty() {
            self.sql.execute(&mut tx, REGISTER_MASTER_KEY, values![id, now.micros()]).await?;
            self.sql.commit(tx).await?;
            return Ok(Registration::Current);
        }
        match known.into_iter().find(|key| key.current) {
            Some(current) if current.id == id => Ok(Registration::Current),
            Some(current) => Ok(Registration::Other(current.id)),
            None => Err(StoreError::Corrupt("none of the master keys is the current one".to_owned())),
        }
    }

    async fn list_sealed(&self, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<SealedRow>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.sql.rows(LIST_SEALED, values![after, i64::from(limit)]).await?.iter().map(|row| Reader::<DB>(row).sealed()).collect()
    }
}
