//! Every statement is prepared on every database: one that names a column wrongly is found before it runs.

use sqlx::{Executor, Pool, SqlSafeStr};

use super::{Dialect, Queue, audit, certificates, custom_csrs, generation, key_pool, master_keys, scopes};
use crate::testing::TestDatabase;

async fn prepare_all<DB: Dialect>(pool: &Pool<DB>)
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let own = [
        DB::CANCEL_JOB,
        DB::FIND_CUSTOM_CSRS,
        DB::JOBLESS,
        DB::PURGE_JOBS,
        DB::PURGE_WORKERS,
        DB::TAKE_JOBS,
        DB::START_ROWS_OF_JOBS,
        DB::LEASE_POOL_KEY,
        DB::VITALS,
    ];
    let own = own
        .into_iter()
        .chain(DB::RELEASE_JOBS)
        .chain([DB::SWEEP_LOCK, DB::POOL_LOCK, DB::MASTER_KEY_LOCK, DB::EMPTY_POOL].into_iter().flatten());
    let mut connection = pool.acquire().await.unwrap();
    for sql in custom_csrs::ALL
        .iter()
        .copied()
        .chain([scopes::ALL, generation::ALL, key_pool::ALL, master_keys::ALL, audit::ALL, certificates::ALL])
        .flatten()
        .copied()
        .chain(own)
    {
        (&mut *connection).prepare(sql.into_sql_str()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    assert!((&mut *connection).prepare("SELECT no_such_column FROM custom_csrs".into_sql_str()).await.is_err());
}

#[tokio::test]
async fn every_statement_prepares_and_a_broken_one_does_not() {
    let test = TestDatabase::new().await;
    match &test.database.queue {
        Queue::Sqlite(pool) => prepare_all(pool).await,
        Queue::Postgres(pool) => prepare_all(pool).await,
    }
}
