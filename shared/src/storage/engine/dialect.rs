//! What truly differs between the databases, but for the words of statements: how values go in and out, and what errors mean.

use std::future::Future;

use sqlx::{
    AssertSqlSafe, Database, Executor, Postgres, Row, SqlSafeStr, Sqlite,
    error::DatabaseError,
    migrate::Migrator,
    postgres::{PgDatabaseError, PgSeverity},
};

use super::{Statement, Value};

/// A database that [`super::Sql`] runs on.
pub trait Dialect: Database {
    /// Whether writes have a pool of connections of their own.
    const WRITES_APART: bool;

    /// Whether one text may have several statements with values, so that a transaction begins and ends in the same trip as what it does.
    const SEVERAL_IN_ONE: bool;

    /// The words of a statement; none where this database does not need it.
    fn words(statement: Statement) -> Option<&'static str>;

    /// Our own migrations for this database.
    fn migrations() -> Migrator;

    /// The migrations of the job queue.
    fn queue_migrations() -> Migrator;

    /// Runs a statement without parameters that is not prepared.
    fn simple(connection: &mut Self::Connection, statement: Statement) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Runs a statement; the number of rows that it changed.
    fn execute(
        connection: &mut Self::Connection,
        statement: Statement,
        values: Vec<Value>,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// Runs one statement, or several with the same values where [`Self::SEVERAL_IN_ONE`], and takes their rows.
    fn fetch(
        connection: &mut Self::Connection,
        statements: &[Statement],
        values: Vec<Value>,
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Row>>> + Send;

    /// Reads a TEXT column.
    fn text(row: &Self::Row, column: &str) -> sqlx::Result<Option<String>>;

    /// Reads an integer column.
    fn int(row: &Self::Row, column: &str) -> sqlx::Result<Option<i64>>;

    /// Reads a column of bytes.
    fn blob(row: &Self::Row, column: &str) -> sqlx::Result<Option<Vec<u8>>>;

    /// Whether this error says that the database is out of reach, locked or full rather than that the statement is wrong.
    fn is_unavailable(error: &dyn DatabaseError) -> bool;

    /// Whether a commit that ended in this error may have happened all the same.
    fn is_ambiguous(error: &sqlx::Error) -> bool;
}

/// The part of a dialect that is the same text for each database, but not the same types.
macro_rules! runs {
    () => {
        async fn simple(connection: &mut Self::Connection, statement: Statement) -> sqlx::Result<()> {
            let Some(sql) = Self::words(statement) else { return Ok(()) };
            connection.execute(sql).await.map(drop)
        }

        async fn execute(connection: &mut Self::Connection, statement: Statement, values: Vec<Value>) -> sqlx::Result<u64> {
            let Some(sql) = Self::words(statement) else { return Ok(0) };
            Ok(sqlx::query_with(sql, arguments::<Self>(values)?).execute(connection).await?.rows_affected())
        }

        async fn fetch(connection: &mut Self::Connection, statements: &[Statement], values: Vec<Value>) -> sqlx::Result<Vec<Self::Row>> {
            let words: Vec<_> = statements.iter().copied().filter_map(Self::words).collect();
            let sql = match words.as_slice() {
                [] => return Ok(Vec::new()),
                [one] => one.into_sql_str(),
                several => AssertSqlSafe(several.join("; ")).into_sql_str(),
            };
            sqlx::query_with(sql, arguments::<Self>(values)?).fetch_all(connection).await
        }

        fn text(row: &Self::Row, column: &str) -> sqlx::Result<Option<String>> {
            row.try_get(column)
        }

        fn int(row: &Self::Row, column: &str) -> sqlx::Result<Option<i64>> {
            row.try_get(column)
        }

        fn blob(row: &Self::Row, column: &str) -> sqlx::Result<Option<Vec<u8>>> {
            row.try_get(column)
        }
    };
}

fn arguments<DB: Dialect<Arguments: Bind>>(values: Vec<Value>) -> sqlx::Result<DB::Arguments> {
    let mut arguments = DB::Arguments::default();
    for value in values {
        arguments.bind(value).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Takes a [`Value`] in the database's own encoding.
trait Bind {
    fn bind(&mut self, value: Value) -> Result<(), sqlx::error::BoxDynError>;
}

macro_rules! bind {
    ($arguments:ty) => {
        impl Bind for $arguments {
            fn bind(&mut self, value: Value) -> Result<(), sqlx::error::BoxDynError> {
                use sqlx::Arguments;
                match value {
                    Value::Text(text) => self.add(text),
                    Value::Int(int) => self.add(int),
                    Value::Blob(bytes) => self.add(bytes),
                }
            }
        }
    };
}

bind!(sqlx::sqlite::SqliteArguments);
bind!(sqlx::postgres::PgArguments);

impl Dialect for Sqlite {
    const WRITES_APART: bool = true;
    const SEVERAL_IN_ONE: bool = true;

    fn words(statement: Statement) -> Option<&'static str> {
        statement.sqlite
    }

    fn migrations() -> Migrator {
        sqlx::migrate!("../migrations/sqlite")
    }

    fn queue_migrations() -> Migrator {
        let mut migrator = apalis_sqlite::SqliteStorage::<()>::migrations();
        migrator.dangerous_set_table_name("_apalis_migrations");
        migrator
    }

    runs!();

    fn is_unavailable(error: &dyn DatabaseError) -> bool {
        // The primary result code is the low byte (sqlite.org/rescode.html): busy, locked, read-only, I/O error, full, cannot open.
        let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
        matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)
    }

    fn is_ambiguous(_: &sqlx::Error) -> bool {
        false // in the same process: a commit that returns an error did not happen
    }
}

impl Dialect for Postgres {
    const WRITES_APART: bool = false;
    const SEVERAL_IN_ONE: bool = false;

    fn words(statement: Statement) -> Option<&'static str> {
        statement.postgres
    }

    fn migrations() -> Migrator {
        sqlx::migrate!("../migrations/postgres")
    }

    fn queue_migrations() -> Migrator {
        apalis_postgres::PostgresStorage::<()>::migrations()
    }

    runs!();

    fn is_unavailable(error: &dyn DatabaseError) -> bool {
        // Whatever the reason: the server ended the connection, for example since its transaction was idle for too long.
        let is_ended = error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic));
        // PostgreSQL, appendix A: connection, resources, shutdown; lost races; a read-only standby; a lock or an answer not in time.
        let code = error.code().unwrap_or_default();
        is_ended
            || code.starts_with("08")
            || code.starts_with("53")
            || code.starts_with("57P")
            || matches!(&*code, "40001" | "40P01" | "25006" | "55P03" | "57014")
    }

    fn is_ambiguous(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P")),
            _ => true, // the connection broke, and with it the answer
        }
    }
}
