//! The audit table.

use std::time::Duration;

use super::{accept, database, granted};
use crate::{
    audit::{Action, Actor, AuditScope, Entry, NewEntry, Via},
    bodies::edit::Edit,
    clock::Timestamp,
    custom_csr::KeyType,
    ids::TenantId,
    storage::{Acceptance, AuditQuery, Deletion, Queue, Store},
    testing::{TestDatabase, account, actor, new_custom_csr, now, zone},
};

async fn read(store: &dyn Store, query: AuditQuery) -> Vec<Entry> {
    let (mut run, mut entries) = (store.read_audit(query).await.unwrap(), Vec::new());
    loop {
        let more = run.next().await.unwrap();
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}

async fn words(store: &dyn Store, query: AuditQuery) -> Vec<String> {
    let entries = read(store, query).await;
    entries.iter().map(|entry| format!("{} {} by {}", entry.action, entry.resource, entry.actor.who)).collect()
}

fn all() -> AuditQuery {
    AuditQuery::default()
}

/// Writes so many entries at this time, with the numbers from 1 on.
async fn write_many(test: &TestDatabase, count: u32, at: i64) {
    test.execute(&format!(
        "WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {count}) \
         INSERT INTO audit (at, who, origin, action, resource, scope) SELECT {at}, 'me', '::1', 'edit', 'x', 'zones/z1' FROM counted ORDER BY n"
    ))
    .await;
}

#[tokio::test]
async fn what_is_done_is_recorded_once_and_what_is_refused_is_not() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    let refused = store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await.unwrap();
    assert_eq!(refused, Acceptance::QuotaUsedUp(1));
    let edit = Edit { name: Some(None), description: None };
    store.edit_custom_csr(&scope, id, &edit, &actor(), now()).await.unwrap().unwrap();
    store.edit_custom_csr(&scope, id, &Edit::default(), &actor(), now()).await.unwrap().unwrap();
    assert_eq!(store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap(), Deletion::Deleted);
    assert_eq!(store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap(), Deletion::NotFound);
    let mut rekeyed = new_custom_csr(&scope, KeyType::P256v1);
    rekeyed.replaces = Some(id);
    assert!(matches!(store.accept_custom_csr(&rekeyed, &actor(), now()).await.unwrap(), Acceptance::Accepted(_)));
    assert!(store.revoke_scope(&scope, &actor(), now()).await.unwrap());
    assert!(!store.revoke_scope(&scope, &actor(), now()).await.unwrap());
    let new_id = rekeyed.id;
    let expected = [
        "grant zone/z1".to_owned(),
        format!("create custom_csr/{id}"),
        format!("edit custom_csr/{id}"),
        format!("delete custom_csr/{id}"),
        format!("rekey custom_csr/{new_id}"),
        "revoke zone/z1".to_owned(),
    ];
    assert_eq!(words(&*store, all()).await, expected.map(|entry| entry + " by tester"));
}

#[tokio::test]
async fn entries_are_found_by_time_zone_account_who_and_action_and_by_all_of_them_together() {
    let (_test, store) = database().await;
    granted(&*store, 5).await;
    let scopes: [AuditScope; 5] =
        [AuditScope::all_zones(), (&zone("z2")).into(), AuditScope::all_accounts(), (&account("a1")).into(), (&account("a2")).into()];
    let issued = scopes.map(|scope| NewEntry::scope(Action::TokenIssue, scope));
    let (begin, later) = (now(), now().plus(Duration::from_mins(1)));
    store.record_entries(&issued, &Actor { who: "you".into(), ..actor() }, later).await.unwrap();
    let id = |id: &str| TenantId::parse(id);
    let found = async |query: AuditQuery| {
        let entries = read(&*store, query).await;
        entries.iter().map(|entry| entry.resource.clone()).collect::<Vec<_>>()
    };
    let everything = ["zone/z1", "zone/*", "zone/z2", "account/*", "account/a1", "account/a2"];
    assert_eq!(found(all()).await, everything);
    assert_eq!(found(AuditQuery { zone: id("z1"), ..all() }).await, ["zone/z1", "zone/*"]);
    assert_eq!(found(AuditQuery { account: id("a1"), ..all() }).await, ["account/*", "account/a1"]);
    let either = AuditQuery { zone: id("z1"), account: id("a2"), ..all() };
    assert_eq!(found(either.clone()).await, ["zone/z1", "zone/*", "account/*", "account/a2"]);
    assert_eq!(found(AuditQuery { since: later, ..all() }).await, everything[1..]);
    assert_eq!(found(AuditQuery { until: later, ..all() }).await, everything[..1]);
    assert!(found(AuditQuery { until: begin.minus(Duration::from_hours(1)), ..all() }).await.is_empty());
    assert_eq!(found(AuditQuery { who: Some("you".into()), ..all() }).await, everything[1..]);
    assert!(found(AuditQuery { who: Some("yo".into()), ..all() }).await.is_empty());
    assert_eq!(found(AuditQuery { action: Some(Action::Grant), ..all() }).await, everything[..1]);
    assert!(found(AuditQuery { action: Some(Action::Export), ..all() }).await.is_empty());
    let together = AuditQuery { since: later, who: Some("you".into()), action: Some(Action::TokenIssue), limit: 2, ..either };
    assert_eq!(found(together).await, ["zone/*", "account/*"]);
    assert!(found(AuditQuery { limit: 0, ..all() }).await.is_empty());
    let first = read(&*store, AuditQuery { limit: 1, ..all() }).await;
    assert_eq!((first[0].actor.clone(), first[0].scope.parts()), (actor(), ("zone", "z1")));
}

#[tokio::test]
async fn many_entries_are_read_to_the_last_whatever_numbers_are_missing_between_them() {
    let (test, store) = database().await;
    write_many(&test, 2_500, 1).await;
    // As after years, and after failed transactions.
    let far = if test.is_postgres() { "ALTER TABLE audit ALTER number RESTART 300000" } else { "UPDATE sqlite_sequence SET seq = 299999" };
    test.execute(far).await;
    write_many(&test, 1, 2).await;
    let numbers: Vec<_> = read(&*store, all()).await.iter().map(|entry| entry.number).collect();
    assert!(numbers.len() == 2_501 && numbers.is_sorted() && numbers.last() == Some(&300_000));
    assert_eq!(read(&*store, AuditQuery { since: Timestamp::from_micros(2), ..all() }).await.len(), 1);
    assert_eq!(read(&*store, AuditQuery { limit: 1_001, ..all() }).await.len(), 1_001);
}

#[tokio::test]
async fn all_pages_show_the_table_at_one_moment_whatever_is_committed_between_them() {
    let (test, store) = database().await;
    write_many(&test, 1_500, 1).await;
    let Queue::Postgres(pool) = &test.database.queue else {
        // One transaction at a time writes: no number is committed late. But none is read that came while others were.
        let mut run = store.read_audit(all()).await.unwrap();
        let first = run.next().await.unwrap().len();
        write_many(&test, 1, 1).await;
        assert_eq!(first + run.next().await.unwrap().len(), 1_500);
        return;
    };
    let mut late = pool.begin_with("BEGIN").await.unwrap();
    let insert = "INSERT INTO audit (at, who, origin, action, resource, scope) VALUES (1, 'late', '::1', 'edit', 'x', 'zones/z1')";
    sqlx::query(insert).execute(&mut *late).await.unwrap();
    write_many(&test, 1, 1).await;
    let mut run = store.read_audit(all()).await.unwrap();
    let mut entries = run.next().await.unwrap();
    late.commit().await.unwrap();
    // What comes after the late one is committed must not be shown without it.
    write_many(&test, 1, 1).await;
    loop {
        let more = run.next().await.unwrap();
        if more.is_empty() {
            break;
        }
        entries.extend(more);
    }
    assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), (1..=1_500).chain([1_502]).collect::<Vec<_>>());
    drop(run);
    assert_eq!(read(&*store, all()).await.len(), 1_503);
}

#[tokio::test]
async fn archived_entries_are_deleted_and_no_others_and_that_is_recorded() {
    let (test, store) = database().await;
    write_many(&test, 10, 1).await;
    let entry = NewEntry::archive(3, "ab".to_owned());
    assert_eq!(store.delete_archived(2..=4, Some(&entry), &actor(), now()).await.unwrap(), 3);
    assert_eq!(store.delete_archived(4..=5, None, &actor(), now()).await.unwrap(), 1);
    let left = read(&*store, all()).await;
    assert_eq!(left.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 6, 7, 8, 9, 10, 11]);
    let last = left.last().unwrap();
    assert_eq!((last.action.as_str(), last.resource.as_str(), last.actor.clone()), ("archive", "audit/3/ab", actor()));
    assert!(refusal(&test, "DELETE FROM audit").await.contains("append-only"), "the way is closed again");
    assert_eq!(test.number("SELECT COUNT(*) FROM archiving").await, 0);
}

#[tokio::test]
async fn nothing_opens_the_way_to_delete_for_longer_than_a_transaction_or_for_other_numbers() {
    let (test, _store) = database().await;
    write_many(&test, 3, 1).await;
    let open = "INSERT INTO archiving (id, first, last) VALUES (1, 1, 3)";
    assert!(!refusal(&test, open).await.is_empty(), "it cannot be committed");
    for forged in
        ["(id, never, first, last) VALUES (1, 1, 1, 3)", "(id, first, last) VALUES (0, 1, 3)", "(id, first, last) VALUES (2, 1, 3)"]
    {
        assert!(!refusal(&test, &format!("INSERT INTO archiving {forged}")).await.is_empty(), "{forged}");
    }
    let beyond = "BEGIN; INSERT INTO archiving (id, first, last) VALUES (1, 1, 2); DELETE FROM audit WHERE number <= 3; DELETE FROM archiving; COMMIT";
    assert!(refusal(&test, beyond).await.contains("append-only"));
    assert_eq!(test.number("SELECT COUNT(*) FROM audit").await, 3);
}

#[tokio::test]
async fn entries_of_the_version_before_which_say_not_how_somebody_came_are_told_apart_by_where_from() {
    let (test, store) = database().await;
    let old = "INSERT INTO audit (at, who, origin, action, resource, scope) VALUES";
    test.execute(&format!(
        "{old} (0, 'os:root', 'local', 'grant', 'zone/z1', 'zones/z1'), (0, 'os:root', '::1', 'edit', 'zone/z1', 'zones/z1')"
    ))
    .await;
    store
        .record_entries(&[NewEntry::scope(Action::Grant, (&zone("z1")).into())], &Actor { via: Via::Cli, ..actor() }, now())
        .await
        .unwrap();
    let found = read(&*store, all()).await;
    assert_eq!(found.iter().map(|entry| entry.actor.via).collect::<Vec<_>>(), [Via::Cli, Via::Api, Via::Cli]);
}

#[tokio::test]
async fn nobody_changes_or_deletes_an_entry() {
    let (test, store) = database().await;
    granted(&*store, 1).await;
    let mut attempts = vec!["UPDATE audit SET who = 'nobody'", "DELETE FROM audit"];
    attempts.push(if test.is_postgres() {
        "TRUNCATE audit"
    } else {
        "INSERT OR REPLACE INTO audit SELECT number, at, 'nobody', origin, action, resource, scope, request_id, via, old_custom_csr_id, custom_csr_id \
         FROM audit"
    });
    for attempt in attempts {
        let refused = refusal(&test, attempt).await;
        assert!(refused.contains("append-only"), "{attempt}: {refused}");
    }
    assert_eq!(test.number("SELECT COUNT(*) FROM audit WHERE who = 'tester'").await, 1);
}

/// What the database says against these statements, on a connection of their own.
async fn refusal(test: &TestDatabase, sql: &str) -> String {
    use sqlx::{AssertSqlSafe, Executor};
    let refused = match &test.database.queue {
        Queue::Sqlite(writer) => writer.turn().await.unwrap().connection().unwrap().execute(AssertSqlSafe(sql.to_owned())).await.map(drop),
        Queue::Postgres(pool) => pool.acquire().await.unwrap().detach().execute(AssertSqlSafe(sql.to_owned())).await.map(drop),
    };
    refused.unwrap_err().to_string()
}
