//! The audit table: written within the transactions of what it records, and read.

use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Lent, Reader, Sql, given_rows, statements, values},
};
use crate::{
    audit::{Action, Actor, AuditScope, Entry, NewEntry, Replaced, Via},
    clock::Timestamp,
    ids::{CustomCsrId, Scope, TenantId},
};

/// Which entries to read: those that fit all of this.
#[derive(Debug, Clone)]
pub struct AuditQuery {
    /// Not before then.
    pub since: Timestamp,
    /// Before then.
    pub until: Timestamp,
    /// Those of this zone, and of all zones. With an account as well, those of either.
    pub zone: Option<TenantId>,
    /// Those of this account, and of all accounts.
    pub account: Option<TenantId>,
    /// Those by whom a token or the operating system names so.
    pub who: Option<String>,
    /// Those on this action.
    pub action: Option<Action>,
    /// At most so many, the oldest ones.
    pub limit: u64,
}

impl Default for AuditQuery {
    /// All entries.
    fn default() -> Self {
        let (since, until) = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
        Self { since, until, zone: None, account: None, who: None, action: None, limit: u64::MAX }
    }
}

/// Entries that are read piece by piece, all as they were at one moment: on PostgreSQL a lower number may be committed after a higher one,
/// and reading on from the higher one would pass over it. Reading holds a transaction open, so whoever reads does not wait for anything else.
#[async_trait]
pub trait AuditRun: Send {
    /// The next entries, by their numbers; none at the end.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    async fn next(&mut self) -> Result<Vec<Entry>, StoreError>;
}

/// The part of the storage that is the audit table.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Records what changes nothing else here.
    async fn record_entries(&self, entries: &[NewEntry], actor: &Actor, now: Timestamp) -> Result<(), StoreError>;

    /// Begins to read entries.
    async fn read_audit(&self, query: AuditQuery) -> Result<Box<dyn AuditRun + '_>, StoreError>;

    /// Deletes the entries with these numbers, which are safe elsewhere, and records that; returns how many there were. Nothing else
    /// deletes an entry.
    async fn delete_archived(
        &self,
        numbers: RangeInclusive<i64>,
        entry: Option<&NewEntry>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<u64, StoreError>;
}

/// Records the entries `$entries`.
macro_rules! insert_audit {
    ($db:ident $entries:literal) => {
        concat!(
            "INSERT INTO audit (at, who, origin, action, resource, scope, request_id, via, old_custom_csr_id, custom_csr_id) \
             SELECT at, who, origin, action, resource, scope, request_id, via, old_custom_csr_id, custom_csr_id FROM ",
            $crate::storage::engine::given!($db $entries: at BIGINT, who TEXT, origin TEXT, via TEXT, action TEXT, resource TEXT, scope TEXT,
                request_id TEXT, old_custom_csr_id TEXT, custom_csr_id TEXT)
        )
    };
}

pub(in crate::storage) use insert_audit;

statements! {
    INSERT_AUDIT { sqlite: insert_audit!(sqlite "$1"), postgres: insert_audit!(postgres "$1"),
    };
    /// One subquery each: SQLite finds both at the ends of the table.
    AUDIT_NUMBERS = "SELECT (SELECT MIN(number) FROM audit) AS first, (SELECT MAX(number) FROM audit) AS last";
    /// The next `$11` entries with numbers over `$1`, up to `$2`, from `$3` until before `$4`, of the scopes `$5` to `$8`, by `$9`, on the
    /// action `$10`; what is null asks for nothing.
    READ_AUDIT = "SELECT number, at, who, origin, via, action, resource, scope, request_id, old_custom_csr_id, custom_csr_id FROM audit \
        WHERE number > $1 AND number <= $2 AND at >= $3 AND at < $4 \
        AND (COALESCE(CAST($5 AS TEXT), CAST($7 AS TEXT)) IS NULL OR scope IN ($5, $6, $7, $8)) \
        AND (CAST($9 AS TEXT) IS NULL OR who = $9) AND (CAST($10 AS TEXT) IS NULL OR action = $10) ORDER BY number LIMIT $11";
    /// Lets this transaction delete the entries with the numbers `$1` to `$2`, and no others.
    BEGIN_ARCHIVING = "INSERT INTO archiving (id, first, last) VALUES (1, $1, $2)";
    DELETE_ARCHIVED = "DELETE FROM audit WHERE number BETWEEN $1 AND $2";
    /// Before the commit, which fails without it.
    END_ARCHIVING = "DELETE FROM archiving";
}

/// Entries that are read at once.
const PAGE: u64 = 1_000;
/// Numbers that one statement looks at, however few of their entries fit: its time has a bound, and the table has none.
const SPAN: i64 = 50_000;

struct Run<'a, DB: Dialect> {
    sql: &'a Sql<DB>,
    tx: Lent<DB>,
    query: AuditQuery,
    /// The number that was looked at last.
    after: i64,
    last: i64,
}

#[async_trait]
impl<DB: Dialect> AuditRun for Run<'_, DB> {
    async fn next(&mut self) -> Result<Vec<Entry>, StoreError> {
        while self.after < self.last && self.query.limit > 0 {
            let (span_end, page) = (self.after.saturating_add(SPAN).min(self.last), self.query.limit.min(PAGE));
            let AuditQuery { since, until, zone, account, who, action, .. } = &self.query;
            let zone = zone.as_ref().map(|id| Scope::Zone(id.clone()).to_string());
            let account = account.as_ref().map(|id| Scope::Account(id.clone()).to_string());
            let all = |one: &Option<String>, all: AuditScope| one.as_ref().map(|_| all.as_str().to_owned());
            let (all_zones, all_accounts) = (all(&zone, AuditScope::all_zones()), all(&account, AuditScope::all_accounts()));
            let (who, action) = (who.clone(), action.map(|action| action.as_str().to_owned()));
            let (since, until, limit) = (since.micros(), until.micros(), i64::try_from(page).unwrap_or(i64::MAX));
            let values = values![self.after, span_end, since, until, zone, all_zones, account, all_accounts, who, action, limit];
            let rows = self.sql.fetch(&mut self.tx, READ_AUDIT, values).await?;
            let entries: Vec<_> = rows.iter().map(|row| Reader::<DB>(row).audit_entry()).collect::<Result<_, _>>()?;
            let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
            self.query.limit -= count;
            self.after = entries.last().filter(|_| count == page).map_or(span_end, |last| last.number);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }
}

impl<DB: Dialect> Reader<'_, DB> {
    fn audit_entry(&self) -> Result<Entry, StoreError> {
        let (who, from) = (self.text("who")?, self.text("origin")?);
        let via = self.optional("via", Via::parse)?.unwrap_or_else(|| Via::of_old_entry(&who, &from));
        let (old, new) = (self.optional("old_custom_csr_id", CustomCsrId::parse)?, self.optional("custom_csr_id", CustomCsrId::parse)?);
        Ok(Entry {
            number: self.int("number")?,
            at: Timestamp::from_micros(self.int("at")?),
            actor: Actor { who, via, from, request_id: self.optional_text("request_id")? },
            action: self.text("action")?,
            resource: self.text("resource")?,
            scope: self.parsed("scope", AuditScope::parse)?,
            replaced: old.zip(new).map(|(old, new)| Replaced { old, new }),
        })
    }
}

/// An entry as the table takes it.
#[derive(serde::Serialize)]
pub(super) struct EntryRow<'a> {
    at: i64,
    who: &'a str,
    origin: &'a str,
    via: &'static str,
    action: &'static str,
    resource: String,
    scope: String,
    request_id: Option<&'a str>,
    old_custom_csr_id: Option<String>,
    custom_csr_id: Option<String>,
}

impl<'a> EntryRow<'a> {
    pub fn new(entry: &NewEntry, actor: &'a Actor, now: Timestamp) -> Self {
        Self {
            at: now.micros(),
            who: &actor.who,
            origin: &actor.from,
            via: actor.via.as_str(),
            action: entry.action.as_str(),
            resource: entry.resource(),
            scope: entry.scope.as_str().to_owned(),
            request_id: actor.request_id.as_deref(),
            old_custom_csr_id: entry.replaced.map(|replaced| replaced.old.to_string()),
            custom_csr_id: entry.replaced.map(|replaced| replaced.new.to_string()),
        }
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Writes an entry with what it records.
    pub(super) async fn record(&self, tx: &mut Lent<DB>, entry: &NewEntry, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        self.record_all(tx, &[EntryRow::new(entry, actor, now)]).await
    }

    /// Writes several, in this order.
    pub(super) async fn record_all(&self, tx: &mut Lent<DB>, entries: &[EntryRow<'_>]) -> Result<(), StoreError> {
        self.execute(tx, INSERT_AUDIT, values![given_rows(entries)?]).await.map(drop)
    }
}

#[async_trait]
impl<DB: Dialect> AuditStore for SqlStore<DB> {
    async fn record_entries(&self, entries: &[NewEntry], actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.sql.begin_write().await?;
        for entry in entries {
            self.sql.record(&mut tx, entry, actor, now).await?;
        }
        self.sql.commit(tx).await
    }

    async fn read_audit(&self, query: AuditQuery) -> Result<Box<dyn AuditRun + '_>, StoreError> {
        let mut tx = self.sql.begin_read().await?;
        let rows = self.sql.fetch(&mut tx, AUDIT_NUMBERS, values![]).await?;
        let number = |column| rows.first().map_or(Ok(None), |row| Reader::<DB>(row).optional_int(column));
        let (first, last) = (number("first")?.unwrap_or_default(), number("last")?.unwrap_or_default());
        Ok(Box::new(Run { sql: &self.sql, tx, query, after: first.saturating_sub(1), last }))
    }

    async fn delete_archived(
        &self,
        numbers: RangeInclusive<i64>,
        entry: Option<&NewEntry>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let (first, last) = (*numbers.start(), *numbers.end());
        let mut tx = self.sql.begin_write().await?;
        if let Some(entry) = entry {
            self.sql.record(&mut tx, entry, actor, now).await?;
        }
        self.sql.execute(&mut tx, BEGIN_ARCHIVING, values![first, last]).await?;
        let deleted = self.sql.execute(&mut tx, DELETE_ARCHIVED, values![first, last]).await?;
        self.sql.execute(&mut tx, END_ARCHIVING, values![]).await?;
        self.sql.commit(tx).await?;
        Ok(deleted)
    }
}
