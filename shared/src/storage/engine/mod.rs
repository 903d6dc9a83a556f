//! Runs SQL on either database: connections, transactions, statements, values, rows and batches. It knows no word of the domain.

mod batch;
mod connections;
mod dialect;
mod kept;
mod lent;
mod migrate;
mod open;
mod pool;
mod postgres;
mod row;
mod sql;
mod sqlite;
mod statement;
mod tasks;
mod value;
mod writer;

pub(super) use self::{
    batch::{Batch, Failure, Outcome, Work},
    lent::Lent,
    migrate::database_words,
    open::Opened,
    postgres::{connect_without_durable_commits, open as open_postgres, pool_without_durable_commits},
    row::{Reader, corrupt},
    sql::Sql,
    sqlite::{OpenFile, open as open_sqlite},
    statement::{Statement, given, given_ids, given_rows, hex, statement, statements},
    tasks::Tasks,
    value::{Value, values},
};
pub use self::{
    dialect::Dialect,
    open::{Access, CopyError, Location, Migrate, OpenError, Queue},
    pool::PoolUse,
    writer::{Writer, WriterTurn},
};
#[cfg(test)]
pub(super) use self::{lent::STATEMENTS as LENT_STATEMENTS, sql::STATEMENTS};
