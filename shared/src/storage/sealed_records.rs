//! Sealed records: read in batches, and sealed anew under another master key.

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Reader, Statement, given, given_ids, given_rows, hex, statements, values},
};
use crate::{
    ids::{CustomCsrId, Scope},
    seal::Binding,
};

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

/// The part of the storage that is sealed records. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait SealedRecords: Send + Sync {
    /// The next `limit` sealed records of all custom CSRs, hidden ones too, by ID, after this one.
    async fn list_sealed(&self, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<SealedRow>, StoreError>;

    /// The next `limit` records of all columns that this master key sealed, after this one, column by column and by ID.
    async fn list_sealed_by(&self, master_key_id: &str, after: Option<&SealedRecord>, limit: u32) -> Result<Vec<SealedRecord>, StoreError>;

    /// Stores records that were sealed anew; how many. One that was changed or deleted meanwhile, that another transaction holds at the
    /// moment, or whose new master key is no longer the current one, stays as it is.
    async fn reseal(&self, records: &[Resealed]) -> Result<u64, StoreError>;
}

/// A column of sealed records.
struct Place {
    /// The table that its records are bound to.
    table: &'static str,
    column: &'static str,
    list: Statement,
    reseal: Statement,
}

/// Every column whose records last. A new one is one line here, and its two statements; its table names the master key in `master_key_id`,
/// which refers to `master_keys`. Pool keys are none of them: they are made anew.
const PLACES: [Place; 3] = [
    Place { table: "custom_csrs", column: "sealed_private_key", list: LIST_PRIVATE_KEYS, reseal: RESEAL_PRIVATE_KEYS },
    Place { table: "webhook_keys", column: "sealed_private_key", list: LIST_WEBHOOK_KEYS, reseal: RESEAL_WEBHOOK_KEYS },
    // Restoring brings hidden rows back as they are.
    Place { table: "custom_csrs", column: "sealed_private_key", list: LIST_HIDDEN_KEYS, reseal: RESEAL_HIDDEN_KEYS },
];

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
    ($db:ident $table:literal $column:literal $lock:expr) => {
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
    LIST_PRIVATE_KEYS = list_sealed_by!("custom_csrs" "sealed_private_key");
    RESEAL_PRIVATE_KEYS {
        sqlite: reseal!(sqlite "custom_csrs" "sealed_private_key" ""),
        postgres: reseal!(postgres "custom_csrs" "sealed_private_key" concat!(" AND custom_csrs.id = ANY (ARRAY(SELECT id FROM custom_csrs \
            WHERE id = ANY (", given_ids!(), ") ORDER BY id FOR NO KEY UPDATE SKIP LOCKED))")),
    };
    LIST_WEBHOOK_KEYS = list_sealed_by!("webhook_keys" "sealed_private_key");
    /// There is hardly more than one, and nobody holds them.
    RESEAL_WEBHOOK_KEYS {
        sqlite: reseal!(sqlite "webhook_keys" "sealed_private_key" ""),
        postgres: reseal!(postgres "webhook_keys" "sealed_private_key" ""),
    };
    LIST_HIDDEN_KEYS = list_sealed_by!("hidden_custom_csrs" "sealed_private_key");
    RESEAL_HIDDEN_KEYS {
        sqlite: reseal!(sqlite "hidden_custom_csrs" "sealed_private_key" ""),
        postgres: reseal!(postgres "hidden_custom_csrs" "sealed_private_key" concat!(" AND hidden_custom_csrs.id = ANY (ARRAY(SELECT id \
            FROM hidden_custom_csrs WHERE id = ANY (", given_ids!(), ") ORDER BY id FOR NO KEY UPDATE SKIP LOCKED))")),
    };
    LIST_SEALED = "SELECT id, scope, spki_sha256, master_key_id, sealed_private_key FROM (SELECT * FROM (SELECT id, scope, spki_sha256, \
        master_key_id, sealed_private_key FROM custom_csrs WHERE id > $1 AND sealed_private_key IS NOT NULL ORDER BY id LIMIT $2) AS seen \
        UNION ALL SELECT * FROM (SELECT id, scope, spki_sha256, master_key_id, sealed_private_key FROM hidden_custom_csrs \
        WHERE id > $1 AND sealed_private_key IS NOT NULL ORDER BY id LIMIT $2) AS hidden) AS sealed ORDER BY id LIMIT $2";
}

impl<DB: Dialect> Reader<'_, DB> {
    fn sealed_record(&self, place: usize) -> Result<SealedRecord, StoreError> {
        let (spki_sha256, sealed) = (self.digest("spki_sha256")?, self.blob("sealed")?);
        Ok(SealedRecord { place, id: self.text("id")?, scope: self.text("scope")?, spki_sha256, sealed })
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

#[async_trait]
impl<DB: Dialect> SealedRecords for SqlStore<DB> {
    async fn list_sealed(&self, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<SealedRow>, StoreError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.sql.rows(LIST_SEALED, values![after, i64::from(limit)]).await?.iter().map(|row| Reader::<DB>(row).sealed()).collect()
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
}
