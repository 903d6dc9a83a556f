//! The key pool: sealed private keys (RSA-2048) made ahead, each for one custom CSR to come.
//!
//! What matters is that no key is used twice. A worker leases a pool key before it unseals it, and from then on the key is either given to
//! a custom CSR, in the transaction that deletes it here, or deleted. A lease that expired means deletion as well: nobody knows what
//! became of the key. Pool keys of a master key that no longer seals are deleted; they keep no master key in use.

use std::time::Duration;

use async_trait::async_trait;
use ulid::Ulid;

use super::{
    Dialect, GeneratedCsr, SqlStore, StoreError,
    generation::{COMPLETE_GENERATION, complete_values},
    group_commit::{Write, Written},
    lent::Lent,
    row::Reader,
    value::values,
};
use crate::{clock::Timestamp, ids::CustomCsrId};

/// A private key about to go into the pool.
#[derive(Debug, Clone)]
pub struct NewPoolKey {
    /// Its ID, to which it is sealed.
    pub id: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Which master key sealed it.
    pub master_key_id: String,
    /// The sealed private key.
    pub sealed_private_key: Vec<u8>,
}

/// A private key out of the pool, leased.
#[derive(Debug, Clone)]
pub struct PoolKey {
    /// Its ID.
    pub id: String,
    /// Who leases it.
    pub lease_id: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// The sealed private key.
    pub sealed_private_key: Vec<u8>,
}

/// What became of a generation with a key from the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PooledCompletion {
    /// The custom CSR is active, and the pool has the key no more.
    Completed,
    /// Nothing was written: the custom CSR is gone or no longer pending.
    NotPending,
    /// Nothing was written: the lease had expired, and the key was deleted.
    LeaseLost,
}

/// The part of the storage that the key pool is in. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait PoolKeys: Send + Sync {
    /// Adds a key while the pool has fewer than `size`, those under lease included. False where it has not, or where the key's
    /// master key is no longer the current one.
    async fn add_pool_key(&self, key: &NewPoolKey, size: u32, now: Timestamp) -> Result<bool, StoreError>;

    /// The keys in the pool, those under lease included.
    async fn count_pool_keys(&self) -> Result<u64, StoreError>;

    /// Leases a free key that this master key sealed, for `lease` by the database's clock. No two calls get the same one, and none waits
    /// for another.
    async fn lease_pool_key(&self, master_key_id: &str, lease: Duration) -> Result<Option<PoolKey>, StoreError>;

    /// Makes a pending row active with a key from the pool, which leaves the pool: both or nothing.
    async fn complete_pooled(
        &self,
        id: CustomCsrId,
        made: &GeneratedCsr,
        key: &PoolKey,
        now: Timestamp,
    ) -> Result<PooledCompletion, StoreError>;

    /// Deletes a leased key that is not to be used.
    async fn discard_pool_key(&self, key: &PoolKey) -> Result<(), StoreError>;

    /// Deletes all keys of the pool, where one process has the database for itself: the file may be a restored one, whose pool keys were
    /// used after it was copied.
    async fn empty_pool(&self) -> Result<u64, StoreError>;
}

/// A row where the pool has fewer than `$2` keys and `$1` is the current master key.
pub(in crate::storage) const ROOM_IN_POOL: &str =
    "SELECT id FROM master_keys WHERE id = $1 AND current = 1 AND (SELECT COUNT(*) FROM pool_keys) < $2";
pub(in crate::storage) const INSERT_POOL_KEY: &str =
    "INSERT INTO pool_keys (id, created_at, master_key_id, spki_sha256, sealed_private_key) VALUES ($1, $2, $3, $4, $5)";
pub(in crate::storage) const COUNT_POOL_KEYS: &str = "SELECT COUNT(*) AS total FROM pool_keys";
pub(in crate::storage) const DELETE_LEASED_POOL_KEY: &str = "DELETE FROM pool_keys WHERE id = $1 AND lease_id = $2";
pub(in crate::storage) const PURGE_POOL_KEYS: &str =
    "DELETE FROM pool_keys WHERE id IN (SELECT id FROM pool_keys WHERE lease_expires_at < $1 LIMIT $2)";

/// All of the above, for the test that prepares them.
#[cfg(test)]
pub(in crate::storage) const ALL: &[&str] = &[ROOM_IN_POOL, INSERT_POOL_KEY, COUNT_POOL_KEYS, DELETE_LEASED_POOL_KEY, PURGE_POOL_KEYS];

impl<DB: Dialect> Reader<'_, DB> {
    pub(in crate::storage) fn pool_key(&self, lease_id: String) -> Result<PoolKey, StoreError> {
        let (spki_sha256, sealed_private_key) = (self.spki_sha256()?, self.blob("sealed_private_key")?);
        Ok(PoolKey { id: self.text("id")?, lease_id, spki_sha256, sealed_private_key })
    }
}

#[async_trait]
impl<DB: Dialect> PoolKeys for SqlStore<DB> {
    async fn add_pool_key(&self, key: &NewPoolKey, size: u32, now: Timestamp) -> Result<bool, StoreError> {
        let NewPoolKey { id, spki_sha256, master_key_id, sealed_private_key } = key.clone();
        let mut tx = self.begin_write().await?;
        if let Some(lock) = DB::POOL_LOCK {
            self.fetch(&mut tx, lock, values![]).await?;
        }
        if self.fetch(&mut tx, ROOM_IN_POOL, values![master_key_id.clone(), i64::from(size)]).await?.is_empty() {
            return Ok(false);
        }
        let values = values![id, now.micros(), master_key_id, spki_sha256.to_vec(), sealed_private_key];
        self.execute(&mut tx, INSERT_POOL_KEY, values).await?;
        self.commit(tx).await?;
        Ok(true)
    }

    async fn count_pool_keys(&self) -> Result<u64, StoreError> {
        let rows = self.rows(COUNT_POOL_KEYS, values![]).await?;
        let total = rows.first().map(|row| Reader::<DB>(row).int("total")).transpose()?;
        Ok(total.unwrap_or_default().unsigned_abs())
    }

    async fn lease_pool_key(&self, master_key_id: &str, lease: Duration) -> Result<Option<PoolKey>, StoreError> {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        let lease_id = Ulid::generate().to_string();
        let leased = self.write_returning(DB::LEASE_POOL_KEY, values![lease_id.clone(), lease, master_key_id]).await?;
        leased.first().map(|row| Reader::<DB>(row).pool_key(lease_id)).transpose()
    }

    async fn complete_pooled(
        &self,
        id: CustomCsrId,
        made: &GeneratedCsr,
        key: &PoolKey,
        now: Timestamp,
    ) -> Result<PooledCompletion, StoreError> {
        self.write_grouped(Write::CompletePooled(id, made.clone(), key.clone(), now)).await.and_then(Written::pooled)
    }

    async fn discard_pool_key(&self, key: &PoolKey) -> Result<(), StoreError> {
        self.write(DELETE_LEASED_POOL_KEY, values![key.id.clone(), key.lease_id.clone()]).await.map(drop)
    }

    async fn empty_pool(&self) -> Result<u64, StoreError> {
        match DB::EMPTY_POOL {
            Some(empty) => self.write(empty, values![]).await,
            None => Ok(0),
        }
    }
}

impl<DB: Dialect> SqlStore<DB> {
    /// Anything but a completion has to be rolled back.
    pub(super) async fn complete_with(
        &self,
        tx: &mut Lent<DB>,
        id: CustomCsrId,
        made: &GeneratedCsr,
        key: &PoolKey,
        now: Timestamp,
    ) -> Result<PooledCompletion, StoreError> {
        if self.execute(tx, COMPLETE_GENERATION, complete_values(id, made, now)).await? == 0 {
            return Ok(PooledCompletion::NotPending);
        }
        let deleted = self.execute(tx, DELETE_LEASED_POOL_KEY, values![key.id.clone(), key.lease_id.clone()]).await?;
        Ok(if deleted == 0 { PooledCompletion::LeaseLost } else { PooledCompletion::Completed })
    }
}
