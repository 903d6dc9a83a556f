//! Every statement is prepared on every database: one that names a column wrongly is found before it runs.

use sqlx::{Executor, Postgres, SqlSafeStr, Sqlite};

use super::{
    Dialect, Queue, ari, audit, certificates,
    custom_csrs::{self, ACCEPT_STATEMENTS, HIDDEN_STATEMENTS, LIST_STATEMENTS, READ_STATEMENTS},
    engine::{self, Statement},
    figures,
    generation::{self, COMPLETE_STATEMENTS},
    handovers, incidents, jobs, key_holders, key_pool, maintenance, master_keys, renewals, scopes, sealed_records, webhooks,
};
use crate::testing::TestDatabase;

const ALL: &[&[(&str, Statement)]] = &[
    engine::STATEMENTS,
    engine::LENT_STATEMENTS,
    scopes::STATEMENTS,
    jobs::STATEMENTS,
    custom_csrs::STATEMENTS,
    ACCEPT_STATEMENTS,
    HIDDEN_STATEMENTS,
    LIST_STATEMENTS,
    READ_STATEMENTS,
    generation::STATEMENTS,
    COMPLETE_STATEMENTS,
    key_pool::STATEMENTS,
    certificates::STATEMENTS,
    certificates::KEY_STATEMENTS,
    handovers::STATEMENTS,
    incidents::STATEMENTS,
    incidents::READ_STATEMENTS,
    incidents::REKEY_STATEMENTS,
    incidents::SCHEDULE_STATEMENTS,
    incidents::TURN_STATEMENTS,
    master_keys::STATEMENTS,
    sealed_records::STATEMENTS,
    key_holders::STATEMENTS,
    audit::STATEMENTS,
    maintenance::STATEMENTS,
    webhooks::STATEMENTS,
    webhooks::DELIVERY_STATEMENTS,
    figures::STATEMENTS,
    renewals::STATEMENTS,
    renewals::DUE_STATEMENTS,
    renewals::STEP_STATEMENTS,
    ari::STATEMENTS,
];

async fn prepare_all<DB: Dialect>(connection: &mut DB::Connection)
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    for (name, statement) in ALL.iter().copied().flatten() {
        let Some(sql) = DB::words(*statement) else { continue };
        connection.prepare(sql.into_sql_str()).await.unwrap_or_else(|error| panic!("{name}: {sql}: {error}"));
    }
    assert!(connection.prepare("SELECT no_such_column FROM custom_csrs".into_sql_str()).await.is_err());
}

#[tokio::test]
async fn every_statement_prepares_and_a_broken_one_does_not() {
    let test = TestDatabase::new().await;
    match &test.database.queue {
        Queue::Sqlite(writer) => prepare_all::<Sqlite>(writer.turn().await.unwrap().connection().unwrap()).await,
        Queue::Postgres(pool) => prepare_all::<Postgres>(&mut pool.acquire().await.unwrap()).await,
    }
}
