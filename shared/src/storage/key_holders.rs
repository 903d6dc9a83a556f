//! Which processes seal, and with which master keys: nobody retires or misses one that another process needs.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Reader, statements, values},
};

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

/// The part of the storage that is processes that seal. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait KeyHolders: Send + Sync {
    /// Reports the master keys of a process that seals. It counts as live for `lease`, by the database's clock.
    async fn report_key_holder(&self, holder: &KeyHolder, lease: Duration) -> Result<(), StoreError>;

    /// The live processes that seal.
    async fn list_key_holders(&self) -> Result<Vec<KeyHolder>, StoreError>;

    /// The names of workers that were seen within `seen_within` and whose process never reported its master keys: it is of a version that
    /// knows one master key only.
    async fn list_silent_workers(&self, seen_within: Duration) -> Result<Vec<String>, StoreError>;
}

statements! {
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
}

impl<DB: Dialect> Reader<'_, DB> {
    fn key_holder(&self) -> Result<KeyHolder, StoreError> {
        let master_key_ids = self.text("master_key_ids")?.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
        Ok(KeyHolder { id: self.text("id")?, name: self.text("name")?, master_key_ids, sealing_id: self.text("sealing_id")? })
    }
}

#[async_trait]
impl<DB: Dialect> KeyHolders for SqlStore<DB> {
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
