//! Figures for metrics: of the whole database, which are the same from every process, and of the connections of this one.

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{PoolUse, Reader, statements, values},
};

/// The figures of the whole database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Custom CSRs that wait for a worker.
    pub pending: u64,
    /// Custom CSRs that a worker has begun to make keys for.
    pub running: u64,
    /// For how many seconds the oldest of both has been pending, or `None` if there are none.
    pub oldest_pending_secs: Option<u64>,
    /// Keys in the key pool, those under lease included.
    pub key_pool_keys: u64,
    /// Certificates that are valid now and expire within 1 day, 7, 14 and 30 days.
    pub expiring: [u64; 4],
}

/// The part of the storage that metrics ask. Each method is one transaction, as in [`super::Store`], but for what is counted at one time and
/// at another.
#[async_trait]
pub trait FigureStore: Send + Sync {
    /// The figures of the whole database, by its clock.
    async fn figures(&self) -> Result<Figures, StoreError>;

    /// How many connections of this process each pool has, but for those of the job queue.
    fn pools(&self) -> Vec<PoolUse>;
}

statements! {
    /// The database's clock in microseconds since the Unix epoch (`now`), the pending custom CSRs that nobody began (`pending`) and those that a
    /// worker did (`running`), when the oldest was accepted (`oldest`), and the keys of the key pool.
    FIGURES {
        sqlite: "SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 AS now, COUNT(*) FILTER (WHERE starts = 0) AS pending, \
            COUNT(*) FILTER (WHERE starts > 0) AS running, MIN(created_at) AS oldest, (SELECT COUNT(*) FROM pool_keys) AS pool_keys \
            FROM custom_csrs WHERE status = 'pending'",
        postgres: "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) AS now, \
            COUNT(*) FILTER (WHERE starts = 0) AS pending, \
            COUNT(*) FILTER (WHERE starts > 0) AS running, MIN(created_at) AS oldest, (SELECT COUNT(*) FROM pool_keys) AS pool_keys \
            FROM custom_csrs WHERE status = 'pending'",
    };
    /// The certificates that are valid at `$1` and expire before `$2`, `$3`, `$4` and `$5`, the last of them.
    EXPIRING = "SELECT COUNT(*) FILTER (WHERE not_after < $2) AS first, COUNT(*) FILTER (WHERE not_after < $3) AS second, \
        COUNT(*) FILTER (WHERE not_after < $4) AS third, COUNT(*) AS fourth FROM custom_certificates WHERE not_after >= $1 AND not_after < $5";
}

const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

#[async_trait]
impl<DB: Dialect> FigureStore for SqlStore<DB> {
    async fn figures(&self) -> Result<Figures, StoreError> {
        let no_row = || StoreError::Internal("no row".to_owned());
        let rows = self.sql.rows(FIGURES, values![]).await?;
        let row = Reader::<DB>(rows.first().ok_or_else(no_row)?);
        let now = row.int("now")?;
        let [day, week, fortnight, month] = [1, 7, 14, 30].map(|days| now.saturating_add(days * DAY_MICROS));
        let expiring = self.sql.rows(EXPIRING, values![now, day, week, fortnight, month]).await?;
        let expiring = Reader::<DB>(expiring.first().ok_or_else(no_row)?);
        let count = |row: &Reader<'_, DB>, column: &str| row.int(column).map(i64::unsigned_abs);
        Ok(Figures {
            pending: count(&row, "pending")?,
            running: count(&row, "running")?,
            oldest_pending_secs: row.optional_int("oldest")?.map(|oldest| now.saturating_sub(oldest).max(0).unsigned_abs() / 1_000_000),
            key_pool_keys: count(&row, "pool_keys")?,
            expiring: [count(&expiring, "first")?, count(&expiring, "second")?, count(&expiring, "third")?, count(&expiring, "fourth")?],
        })
    }

    fn pools(&self) -> Vec<PoolUse> {
        self.sql.pools()
    }
}
