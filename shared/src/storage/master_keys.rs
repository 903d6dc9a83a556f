//! Master keys that the database remembers, and what they sealed.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Lent, Reader, Sql, Statement, given, given_rows, hex, statements, values},
    key_pool::LOCK_POOL,
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    ids::{CustomCsrId, Scope},
    seal::Binding,
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

/// A sealed record of whatever column, with all that it is bound to.
#[derive(Debug, Clone)]
pub struct SealedRecord {
    /// Which of [`PLACES`].
    place: usize,
    /// The row's ID.
    pub id: String,
    /// The scope, in the form of its [`Binding`].
    pub scope: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// The record.
    pub sealed: Vec<u8>,
}

impl SealedRecord {
    /// What it is bound to.
    #[must_use]
    pub fn binding(&self) -> Binding<'_> {
        let place = &PLACES[self.place];
        Binding { table: place.table, row_id: &self.id, column: place.column, scope: &self.scope, spki_sha256: &self.spki_sha256 }
    }
}

/// A record that was sealed anew.
#[derive(Debug, Clone)]
pub struct Resealed {
    /// The record as it was read.
    pub record: SealedRecord,
    /// The master key that sealed it now.
    pub master_key_id: String,
    /// What it is to become.
    pub resealed: Vec<u8>,
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

/// A process that seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// Its ID, which is part of the names of its workers in the job queue.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The IDs of the master keys that it has.
    pub master_key_ids: Vec<String>,
    /// The ID of the one that it takes for the current one.
    pub sealing_id: String,
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

    /// The next `limit` records of all columns that this master key sealed, after this one, column by column and by ID.
    async fn list_sealed_by(&self, master_key_id: &str, after: Option<&SealedRecord>, limit: u32) -> Result<Vec<SealedRecord>, StoreError>;

    /// Stores records that were sealed anew; how many. One that was changed or deleted meanwhile, that another transaction holds at the
    /// moment, or whose new master key is no longer the current one, stays as it is.
    async fn reseal(&self, records: &[Resealed]) -> Result<u64, StoreError>;

    /// Reports the master keys of a process that seals. It counts as live for `lease`, by the database's clock.
    async fn report_key_holder(&self, holder: &KeyHolder, lease: Duration) -> Result<(), StoreError>;

    /// The live processes that seal.
    async fn list_key_holders(&self) -> Result<Vec<KeyHolder>, StoreError>;

    /// The names of workers that were seen within `seen_within` and whose process never reported its master keys: it is of a version that
    /// knows one master key only.
    async fn list_silent_workers(&self, seen_within: Duration) -> Result<Vec<String>, StoreError>;
}

/// A column of sealed records.
struct Place {
    table: &'static str,
    column: &'static str,
    list: Statement,
    reseal: Statement,
}

/// Every column whose records last. A new one is one line here, and its two statements; its table names the master key in `master_key_id`,
/// which refers to `master_keys`. Pool keys are none of them: they are made anew.
const PLACES: [Place; 1] =
    [Place { table: "custom_csrs", column: "sealed_private_key", list: LIST_PRIVATE_KEYS, reseal: RESEAL_PRIVATE_KEYS }];

/// The next `$3` records that the master key `$1` sealed, with IDs after `$2`.
macro_rules! list_sealed_by {
    ($table:literal $column:literal) => {
        concat!(
            "SELECT id, scope, spki_sha256, ",
            $column,
            " AS sealed FROM ",
            $table,
            " WHERE master_key_id = $1 AND id > $2 ORDER BY id LIMIT $3"
        )
    };
}

/// Replaces records that are still what they were, where the new master key is the current one. `$lock` says which of them PostgreSQL takes,
/// and in which order.
macro_rules! reseal {
    ($db:ident $table:literal $column:literal $lock:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " SET master_key_id = given.master_key_id, ",
            $column,
            " = given.resealed FROM ",
            given!($db id TEXT, master_key_id TEXT, sealed BYTEA, resealed BYTEA),
            " WHERE ",
            $table,
            ".id = given.id AND ",
            $table,
            ".",
            $column,
            " = given.sealed AND EXISTS (SELECT 1 FROM master_keys WHERE master_keys.id = given.master_key_id AND current = 1)",
            $lock
        )
    };
}

statements! {
    LIST_MASTER_KEYS = "SELECT id, current, CAST(CASE WHEN EXISTS (SELECT 1 FROM custom_csrs \
        WHERE master_key_id = master_keys.id) THEN 1 ELSE 0 END AS BIGINT) AS in_use FROM master_keys ORDER BY created_at, id";
    /// Until the transaction ends (`mkey` in ASCII). On SQLite one transaction at a time writes anyway.
    LOCK_MASTER_KEYS { postgres: "SELECT CAST(1 AS BIGINT) AS locked FROM pg_advisory_xact_lock(1835754873)",
    };
    REGISTER_MASTER_KEY = "INSERT INTO master_keys (id, current, created_at) VALUES ($1, 1, $2)";
    COUNT_SEALED = "SELECT id, current, (SELECT COUNT(*) FROM custom_csrs WHERE master_key_id = master_keys.id) AS sealed, \
        (SELECT COUNT(*) FROM pool_keys WHERE master_key_id = master_keys.id) AS pool_keys FROM master_keys ORDER BY created_at, id";
    ADD_MASTER_KEY = "INSERT INTO master_keys (id, current, created_at) VALUES ($1, 0, $2) ON CONFLICT (id) DO NOTHING";
    MAKE_CURRENT = "UPDATE master_keys SET current = CASE WHEN id = $1 THEN 1 ELSE 0 END";
    DELETE_USELESS_POOL_KEYS = "DELETE FROM pool_keys WHERE master_key_id <> $1 AND lease_id IS NULL";
    DELETE_MASTER_KEY = "DELETE FROM master_keys WHERE id = $1 AND current = 0";
    ADD_RETIRED = "INSERT INTO retired_master_keys (id, retired_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    DELETE_RETIRED = "DELETE FROM retired_master_keys WHERE id = $1";
    LIST_RETIRED = "SELECT id FROM retired_master_keys ORDER BY retired_at, id";
    LIST_PRIVATE_KEYS = list_sealed_by!("custom_csrs" "sealed_private_key");
    RESEAL_PRIVATE_KEYS {
        sqlite: reseal!(sqlite "custom_csrs" "sealed_private_key" ""),
        postgres: reseal!(postgres "custom_csrs" "sealed_private_key" " AND custom_csrs.id IN (SELECT id FROM custom_csrs \
            WHERE id IN (SELECT json_array_elements(CAST(CAST($1 AS TEXT) AS json)) ->> 'id') ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)"),
    };
    /// Counts the process as live for `$5` microseconds from now on.
    REPORT_KEY_HOLDER {
        sqlite: "INSERT INTO key_holders (id, name, master_key_ids, sealing_id, live_until) \
            VALUES ($1, $2, $3, $4, CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + $5) ON CONFLICT (id) DO UPDATE SET \
            master_key_ids = excluded.master_key_ids, sealing_id = excluded.sealing_id, live_until = excluded.live_until",
        postgres: "INSERT INTO key_holders (id, name, master_key_ids, sealing_id, live_until) \
            VALUES ($1, $2, $3, $4, CAST(extract(epoch FROM now()) * 1000000 AS BIGINT) + $5) ON CONFLICT (id) DO UPDATE SET \
            master_key_ids = excluded.master_key_ids, sealing_id = excluded.sealing_id, live_until = excluded.live_until",
    };
    /// Deletes the processes that are gone for an hour.
    PURGE_KEY_HOLDERS {
        sqlite: "DELETE FROM key_holders WHERE live_until < (CAST(strftime('%s', 'now') AS INTEGER) - 3600) * 1000000",
        postgres: "DELETE FROM key_holders WHERE live_until < CAST((extract(epoch FROM now()) - 3600) * 1000000 AS BIGINT)",
    };
    LIST_KEY_HOLDERS {
        sqlite: "SELECT id, name, master_key_ids, sealing_id FROM key_holders \
            WHERE live_until > CAST(strftime('%s', 'now') AS INTEGER) * 1000000 ORDER BY name, id",
        postgres: "SELECT id, name, master_key_ids, sealing_id FROM key_holders \
            WHERE live_until > CAST(extract(epoch FROM now()) * 1000000 AS BIGINT) ORDER BY name, id",
    };
    /// Workers that were seen within the last `$1` seconds, of processes that are not in `key_holders`.
    LIST_SILENT_WORKERS {
        sqlite: "SELECT id FROM Workers WHERE last_seen > CAST(strftime('%s', 'now') AS INTEGER) - $1 \
            AND NOT EXISTS (SELECT 1 FROM key_holders WHERE instr(Workers.id, key_holders.id) > 0) ORDER BY id",
        postgres: "SELECT id FROM apalis.workers WHERE last_seen > now() - make_interval(secs => $1) \
            AND NOT EXISTS (SELECT 1 FROM key_holders WHERE strpos(workers.id, key_holders.id) > 0) ORDER BY id",
    };
    LIST_SEALED = "SELECT id, scope, spki_sha256, master_key_id, sealed_private_key FROM custom_csrs \
        WHERE id > $1 AND sealed_private_key IS NOT NULL ORDER BY id LIMIT $2";
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

    fn sealed_record(&self, place: usize) -> Result<SealedRecord, StoreError> {
        let (spki_sha256, sealed) = (self.digest("spki_sha256")?, self.blob("sealed")?);
        Ok(SealedRecord { place, id: self.text("id")?, scope: self.text("scope")?, spki_sha256, sealed })
    }

    fn key_holder(&self) -> Result<KeyHolder, StoreError> {
        let master_key_ids = self.text("master_key_ids")?.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
        Ok(KeyHolder { id: self.text("id")?, name: self.text("name")?, master_key_ids, sealing_id: self.text("sealing_id")? })
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

/// A row of a resealing statement.
#[derive(serde::Serialize)]
struct ResealRow<'a> {
    id: &'a str,
    master_key_id: &'a str,
    sealed: String,
    resealed: String,
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

    async fn list_sealed(&self, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<SealedRow>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.sql.rows(LIST_SEALED, values![after, i64::from(limit)]).await?.iter().map(|row| Reader::<DB>(row).sealed()).collect()
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

    async fn list_sealed_by(&self, master_key_id: &str, after: Option<&SealedRecord>, limit: u32) -> Result<Vec<SealedRecord>, StoreError> {
        let first = after.map_or(0, |record| record.place);
        for (place, Place { list, .. }) in PLACES.iter().enumerate().skip(first) {
            let after = after.filter(|record| record.place == place).map(|record| record.id.clone()).unwrap_or_default();
            let rows = self.sql.rows(*list, values![master_key_id, after, i64::from(limit)]).await?;
            if !rows.is_empty() {
                return rows.iter().map(|row| Reader::<DB>(row).sealed_record(place)).collect();
            }
        }
        Ok(Vec::new())
    }

    async fn reseal(&self, records: &[Resealed]) -> Result<u64, StoreError> {
        let mut resealed = 0;
        for (place, Place { reseal, .. }) in PLACES.iter().enumerate() {
            let rows: Vec<_> = records
                .iter()
                .filter(|one| one.record.place == place)
                .map(|Resealed { record, master_key_id, resealed }| ResealRow {
                    id: &record.id,
                    master_key_id,
                    sealed: hex(&record.sealed),
                    resealed: hex(resealed),
                })
                .collect();
            if !rows.is_empty() {
                resealed += self.sql.write(*reseal, values![given_rows(&rows)?]).await?;
            }
        }
        Ok(resealed)
    }

    async fn report_key_holder(&self, holder: &KeyHolder, lease: Duration) -> Result<(), StoreError> {
        let KeyHolder { id, name, master_key_ids, sealing_id } = holder.clone();
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        self.sql.write(REPORT_KEY_HOLDER, values![id, name, master_key_ids.join(","), sealing_id, lease]).await?;
        self.sql.write(PURGE_KEY_HOLDERS, values![]).await.map(drop)
    }

    async fn list_key_holders(&self) -> Result<Vec<KeyHolder>, StoreError> {
        self.sql.rows(LIST_KEY_HOLDERS, values![]).await?.iter().map(|row| Reader::<DB>(row).key_holder()).collect()
    }

    async fn list_silent_workers(&self, seen_within: Duration) -> Result<Vec<String>, StoreError> {
        let secs = i64::try_from(seen_within.as_secs()).unwrap_or(i64::MAX);
        self.sql.rows(LIST_SILENT_WORKERS, values![secs]).await?.iter().map(|row| Reader::<DB>(row).text("id")).collect()
    }
}
