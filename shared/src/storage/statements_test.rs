//! Every statement is prepared on every database: one that names a column wrongly is found before it runs.

use sqlx::{Executor, SqlSafeStr, Sqlite};

use super::{Dialect, statements};
use crate::testing::TestDatabase;

#[tokio::test]
async fn every_statement_prepares_and_a_broken_one_does_not() {
    let test = TestDatabase::sqlite().await;
    let own = [Sqlite::JOBLESS, Sqlite::PURGE_JOBS, Sqlite::PURGE_WORKERS, Sqlite::RELEASE_JOBS];
    let mut connection = test.database.queue.acquire().await.unwrap();
    for sql in statements::ALL.iter().chain(&own) {
        (&mut *connection).prepare((*sql).into_sql_str()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    assert!((&mut *connection).prepare("SELECT no_such_column FROM custom_csrs".into_sql_str()).await.is_err());
}
