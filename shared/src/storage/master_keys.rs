//! Master keys that the database remembers: registered, made current, retired.

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Lent, Reader, Sql, statements, values},
    key_pool::LOCK_POOL,
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
};

/// A master key that the database remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyRow {
    /// Its ID.
    pub id: String,
    /// Whether new records are sealed with it.
    pub current: bool,
    /// Whether a lasting record needs it: one of a custom CSR, hidden or not, or of a key pair for the secrets of webhooks. Pool keys do not count:
    /// they are made again.
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

/// How much a master key is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyUse {
    /// Its ID.
    pub id: String,
    /// Whether new records are sealed with it.
    pub current: bool,
    /// Records that it sealed, of those that last.
    pub sealed: u64,
    /// Keys of the key pool that it sealed.
    pub pool_keys: u64,
}

/// What became of an attempt to retire a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    /// The database forgot it.
    Retired,
    /// It seals: nothing was changed.
    Current,
    /// A record needs it: nothing was changed.
    Needed,
    /// The database does not know it.
    Unknown,
}

/// The part of the storage that is master keys. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait MasterKeys: Send + Sync {
    /// The master keys that the database remembers, oldest first.
    async fn list_master_keys(&self) -> Result<Vec<MasterKeyRow>, StoreError>;

    /// Registers this master key if none was ever registered. The check and the registration are one transaction, and concurrent calls
    /// take turns: of several first starts, one wins.
    async fn register_master_key(&self, id: &str, now: Timestamp) -> Result<Registration, StoreError>;

    /// The master keys that the database remembers, oldest first, with counts: this reads whole indexes.
    async fn count_sealed(&self) -> Result<Vec<MasterKeyUse>, StoreError>;

    /// Makes this master key the current one, registers it if it is not yet, and deletes the free pool keys of the others, which nobody
    /// could use. False if it is the current one already.
    async fn use_master_key(&self, id: &str, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// Forgets this master key, and any pool key of it that is still under lease. The database itself refuses to forget one that a record
    /// needs, and a record of one that is forgotten.
    async fn retire_master_key(&self, id: &str, actor: &Actor, now: Timestamp) -> Result<Retirement, StoreError>;

    /// The IDs of the master keys that were retired.
    async fn list_retired(&self) -> Result<Vec<String>, StoreError>;
}

statements! {
    LIST_MASTER_KEYS = "SELECT id, current, CAST(CASE WHEN EXISTS (SELECT 1 FROM custom_csrs \
        WHERE master_key_id = master_keys.id) OR EXISTS (SELECT 1 FROM hidden_custom_csrs WHERE master_key_id = master_keys.id) \
        OR EXISTS (SELECT 1 FROM webhook_keys WHERE master_key_id = master_keys.id) THEN 1 ELSE 0 END AS BIGINT) AS in_use FROM master_keys ORDER BY created_at, id";
    /// Until the transaction ends (`mkey` in ASCII). On SQLite one transaction at a time writes anyway.
    LOCK_MASTER_KEYS { postgres: "SELECT CAST(1 AS BIGINT) AS locked FROM pg_advisory_xact_lock(1835754873)",
    };
    REGISTER_MASTER_KEY = "INSERT INTO master_keys (id, current, created_at) VALUES ($1, 1, $2)";
    COUNT_SEALED = "SELECT id, current, (SELECT COUNT(*) FROM custom_csrs WHERE master_key_id = master_keys.id) + \
        (SELECT COUNT(*) FROM hidden_custom_csrs WHERE master_key_id = master_keys.id) + \
        (SELECT COUNT(*) FROM webhook_keys WHERE master_key_id = master_keys.id) AS sealed, \
        (SELECT COUNT(*) FROM pool_keys WHERE master_key_id = master_keys.id) AS pool_keys FROM master_keys ORDER BY created_at, id";
    ADD_MASTER_KEY = "INSERT INTO master_keys (id, current, created_at) VALUES ($1, 0, $2) ON CONFLICT (id) DO NOTHING";
    MAKE_CURRENT = "UPDATE master_keys SET current = CASE WHEN id = $1 THEN 1 ELSE 0 END";
    DELETE_USELESS_POOL_KEYS = "DELETE FROM pool_keys WHERE master_key_id <> $1 AND lease_id IS NULL";
    DELETE_MASTER_KEY = "DELETE FROM master_keys WHERE id = $1 AND current = 0";
    ADD_RETIRED = "INSERT INTO retired_master_keys (id, retired_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    DELETE_RETIRED = "DELETE FROM retired_master_keys WHERE id = $1";
    LIST_RETIRED = "SELECT id FROM retired_master_keys ORDER BY retired_at, id";
}

impl<DB: Dialect> Reader<'_, DB> {
    fn master_key(&self) -> Result<MasterKeyRow, StoreError> {
        Ok(MasterKeyRow { id: self.text("id")?, current: self.int("current")? == 1, in_use: self.int("in_use")? == 1 })
    }

    fn master_key_use(&self) -> Result<MasterKeyUse, StoreError> {
        let count = |column| self.int(column).map(i64::unsigned_abs);
        Ok(MasterKeyUse {
            id: self.text("id")?,
            current: self.int("current")? == 1,
            sealed: count("sealed")?,
            pool_keys: count("pool_keys")?,
        })
    }
}

impl<DB: Dialect> Sql<DB> {
    /// The master keys, which nobody else changes until the transaction ends.
    async fn locked_master_keys(&self, tx: &mut Lent<DB>) -> Result<Vec<MasterKeyRow>, StoreError> {
        self.fetch(tx, LOCK_MASTER_KEYS, values![]).await?;
        self.fetch(tx, LIST_MASTER_KEYS, values![]).await?.iter().map(|row| Reader::<DB>(row).master_key()).collect()
    }
}

#[async_trait]
impl<DB: Dialect> MasterKeys for SqlStore<DB> {
    async fn list_master_keys(&self) -> Result<Vec<MasterKeyRow>, StoreError> {
        self.sql.rows(LIST_MASTER_KEYS, values![]).await?.iter().map(|row| Reader::<DB>(row).master_key()).collect()
    }

    async fn register_master_key(&self, id: &str, now: Timestamp) -> Result<Registration, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        let known = self.sql.locked_master_keys(&mut tx).await?;
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

    async fn count_sealed(&self) -> Result<Vec<MasterKeyUse>, StoreError> {
        self.sql.rows(COUNT_SEALED, values![]).await?.iter().map(|row| Reader::<DB>(row).master_key_use()).collect()
    }

    async fn use_master_key(&self, id: &str, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        if self.sql.locked_master_keys(&mut tx).await?.iter().any(|key| key.current && key.id == id) {
            return Ok(false);
        }
        // No pool key of another master key comes in after those are deleted.
        self.sql.fetch(&mut tx, LOCK_POOL, values![]).await?;
        self.sql.execute(&mut tx, ADD_MASTER_KEY, values![id, now.micros()]).await?;
        self.sql.execute(&mut tx, DELETE_RETIRED, values![id]).await?;
        self.sql.execute(&mut tx, MAKE_CURRENT, values![id]).await?;
        self.sql.execute(&mut tx, DELETE_USELESS_POOL_KEYS, values![id]).await?;
        self.sql.record(&mut tx, &NewEntry::master_key(Action::KeyUse, id), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(true)
    }

    async fn retire_master_key(&self, id: &str, actor: &Actor, now: Timestamp) -> Result<Retirement, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        match self.sql.locked_master_keys(&mut tx).await?.into_iter().find(|key| key.id == id) {
            None => return Ok(Retirement::Unknown),
            Some(key) if key.current => return Ok(Retirement::Current),
            Some(key) if key.in_use => return Ok(Retirement::Needed),
            Some(_) => {}
        }
        self.sql.execute(&mut tx, DELETE_MASTER_KEY, values![id]).await?;
        self.sql.execute(&mut tx, ADD_RETIRED, values![id, now.micros()]).await?;
        self.sql.record(&mut tx, &NewEntry::master_key(Action::KeyRetire, id), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(Retirement::Retired)
    }

    async fn list_retired(&self) -> Result<Vec<String>, StoreError> {
        self.sql.rows(LIST_RETIRED, values![]).await?.iter().map(|row| Reader::<DB>(row).text("id")).collect()
    }
}
