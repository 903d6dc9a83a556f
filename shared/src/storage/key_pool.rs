//! The key pool: sealed private keys (RSA-2048) made ahead, each for one custom CSR to come.
//!
//! What matters is that no key is used twice. A worker leases a pool key before it unseals it, and from then on the key is either given to
//! a custom CSR, in the transaction that deletes it here, or deleted. A lease that expired means deletion as well: nobody knows what
//! became of the key. Pool keys of a master key that no longer seals are deleted; they keep no master key in use.

use std::time::Duration;

use async_trait::async_trait;
use ulid::Ulid;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Reader, statements, values},
};
use crate::clock::Timestamp;

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

/// What became of a key for the key pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolAddition {
    /// The key pool has it.
    Added,
    /// Nothing was written: the key pool is full, or the key's master key is no longer the current one.
    NoRoom,
    /// Nothing was written: a custom CSR or the key pool has this very key.
    KeyInUse,
}

/// The part of the storage that the key pool is in. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait PoolKeys: Send + Sync {
    /// Adds a key while the pool has fewer than `size`, those under lease included, and nothing has the key yet.
    async fn add_pool_key(&self, key: &NewPoolKey, size: u32, now: Timestamp) -> Result<PoolAddition, StoreError>;

    /// The keys in the pool, those under lease included.
    async fn count_pool_keys(&self) -> Result<u64, StoreError>;

    /// Leases a free key that this master key sealed, for `lease` by the database's clock. No two calls get the same one, and none waits
    /// for another.
    async fn lease_pool_key(&self, master_key_id: &str, lease: Duration) -> Result<Option<PoolKey>, StoreError>;

    /// Deletes a leased key that is not to be used.
    async fn discard_pool_key(&self, key: &PoolKey) -> Result<(), StoreError>;

    /// Deletes all keys of the pool, where one process has the database for itself: the file may be a restored one, whose pool keys were
    /// used after it was copied.
    async fn empty_pool(&self) -> Result<u64, StoreError>;
}

statements! {
    /// Until the transaction ends (`pool` in ASCII). On SQLite one transaction at a time writes anyway.
    pub(super) LOCK_POOL { postgres: "SELECT CAST(1 AS BIGINT) AS locked FROM pg_advisory_xact_lock(1886351212)",
    };
    /// A row if the key pool has fewer than `$2` keys and `$1` is the current master key; it says whether key `$3` is in use.
    ROOM_IN_POOL = "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM custom_csrs WHERE spki_sha256 = $3) \
        OR EXISTS (SELECT 1 FROM hidden_custom_csrs WHERE spki_sha256 = $3) \
        OR EXISTS (SELECT 1 FROM pool_keys WHERE spki_sha256 = $3) THEN 1 ELSE 0 END AS BIGINT) AS in_use \
        FROM master_keys WHERE id = $1 AND current = 1 AND (SELECT COUNT(*) FROM pool_keys) < $2";
    INSERT_POOL_KEY =
        "INSERT INTO pool_keys (id, created_at, master_key_id, spki_sha256, sealed_private_key) VALUES ($1, $2, $3, $4, $5)";
    COUNT_POOL_KEYS = "SELECT COUNT(*) AS total FROM pool_keys";
    /// Leases a free key of master key `$3` to `$1` for `$2` microseconds by the database's clock and passes over those that others are just
    /// leasing.
    LEASE_POOL_KEY {
        sqlite: "UPDATE pool_keys SET lease_id = $1, \
            lease_expires_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + $2 WHERE id = (SELECT id FROM pool_keys \
            WHERE lease_id IS NULL AND master_key_id = $3 ORDER BY id LIMIT 1) RETURNING id, spki_sha256, sealed_private_key",
        postgres: "UPDATE pool_keys SET lease_id = $1, \
            lease_expires_at = CAST(extract(epoch FROM now()) * 1000000 AS BIGINT) + $2 WHERE id = (SELECT id FROM pool_keys \
            WHERE lease_id IS NULL AND master_key_id = $3 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) \
            RETURNING id, spki_sha256, sealed_private_key",
    };
    DELETE_LEASED_POOL_KEY = "DELETE FROM pool_keys WHERE id = $1 AND lease_id = $2";
    /// Where one process has all workers.
    EMPTY_POOL { sqlite: "DELETE FROM pool_keys",
    };
}

impl<DB: Dialect> Reader<'_, DB> {
    fn pool_key(&self, lease_id: String) -> Result<PoolKey, StoreError> {
        let (spki_sha256, sealed_private_key) = (self.digest("spki_sha256")?, self.blob("sealed_private_key")?);
        Ok(PoolKey { id: self.text("id")?, lease_id, spki_sha256, sealed_private_key })
    }
}

#[async_trait]
impl<DB: Dialect> PoolKeys for SqlStore<DB> {
    async fn add_pool_key(&self, key: &NewPoolKey, size: u32, now: Timestamp) -> Result<PoolAddition, StoreError> {
        let NewPoolKey { id, spki_sha256, master_key_id, sealed_private_key } = key.clone();
        let mut tx = self.sql.begin_write().await?;
        self.sql.fetch(&mut tx, LOCK_POOL, values![]).await?;
        let room = self.sql.fetch(&mut tx, ROOM_IN_POOL, values![master_key_id.clone(), i64::from(size), spki_sha256.to_vec()]).await?;
        let Some(room) = room.first() else { return Ok(PoolAddition::NoRoom) };
        if Reader::<DB>(room).int("in_use")? != 0 {
            return Ok(PoolAddition::KeyInUse);
        }
        let values = values![id, now.micros(), master_key_id, spki_sha256.to_vec(), sealed_private_key];
        self.sql.execute(&mut tx, INSERT_POOL_KEY, values).await?;
        self.sql.commit(tx).await?;
        Ok(PoolAddition::Added)
    }

    async fn count_pool_keys(&self) -> Result<u64, StoreError> {
        let rows = self.sql.rows(COUNT_POOL_KEYS, values![]).await?;
        let total = rows.first().map(|row| Reader::<DB>(row).int("total")).transpose()?;
        Ok(total.unwrap_or_default().unsigned_abs())
    }

    async fn lease_pool_key(&self, master_key_id: &str, lease: Duration) -> Result<Option<PoolKey>, StoreError> {
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        let lease_id = Ulid::generate().to_string();
        let leased = self.sql.write_returning(LEASE_POOL_KEY, values![lease_id.clone(), lease, master_key_id]).await?;
        leased.first().map(|row| Reader::<DB>(row).pool_key(lease_id)).transpose()
    }

    async fn discard_pool_key(&self, key: &PoolKey) -> Result<(), StoreError> {
        self.sql.write(DELETE_LEASED_POOL_KEY, values![key.id.clone(), key.lease_id.clone()]).await.map(drop)
    }

    async fn empty_pool(&self) -> Result<u64, StoreError> {
        self.sql.write(EMPTY_POOL, values![]).await
    }
}
