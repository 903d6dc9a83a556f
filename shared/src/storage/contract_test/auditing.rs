//! The audit table.

use std::time::Duration;

use super::{accept, database, granted};
use crate::{
    audit::{Action, Actor, AuditScope, NewEntry, Via},
    clock::Timestamp,
    model::KeyType,
    storage::{Acceptance, AuditQuery, Deletion, Store},
    testing::{TestDatabase, account, actor, new_custom_csr, now, zone},
    x509::edit::Edit,
};

const ALL: AuditQuery = AuditQuery { after: 0, since: Timestamp::from_micros(0), zone: None, limit: 100 };

async fn words(store: &dyn Store, query: &AuditQuery) -> Vec<String> {
    let entries = store.list_audit(query).await.unwrap();
    entries.iter().map(|entry| format!("{} {} by {}", entry.action, entry.resource, entry.actor.who)).collect()
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
    assert_eq!(words(&*store, &ALL).await, expected.map(|entry| entry + " by tester"));
}

#[tokio::test]
async fn entries_are_found_by_zone_time_and_number() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 5).await;
    let issued =
        [AuditScope::all_zones(), (&zone("other")).into(), (&account("a1")).into()].map(|scope| NewEntry::scope(Action::TokenIssue, scope));
    let later = now().plus(Duration::from_mins(1));
    store.record_entries(&issued, &actor(), later).await.unwrap();
    let of_zone = AuditQuery { zone: Some(scope), ..ALL };
    assert_eq!(words(&*store, &of_zone).await, ["grant zone/z1 by tester", "token_issue zone/* by tester"]);
    let since = AuditQuery { since: later, ..ALL };
    assert_eq!(words(&*store, &since).await.len(), 3);
    let first = store.list_audit(&AuditQuery { limit: 1, ..ALL }).await.unwrap();
    assert_eq!((first.len(), words(&*store, &AuditQuery { after: first[0].number, ..ALL }).await.len()), (1, 3));
    assert_eq!((first[0].actor.clone(), first[0].scope.parts()), (actor(), ("zone", "z1")));
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
    let found = store.list_audit(&ALL).await.unwrap();
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
        "INSERT OR REPLACE INTO audit SELECT number, at, 'nobody', origin, action, resource, scope, request_id, via FROM audit"
    });
    for attempt in attempts {
        let refused = refusal(&test, attempt).await;
        assert!(refused.contains("append-only"), "{attempt}: {refused}");
    }
    assert_eq!(test.number("SELECT COUNT(*) FROM audit WHERE who = 'tester'").await, 1);
}

async fn refusal(test: &TestDatabase, sql: &'static str) -> String {
    use crate::storage::Queue;
    let refused = match &test.database.queue {
        Queue::Sqlite(pool) => sqlx::query(sql).execute(pool).await.map(drop),
        Queue::Postgres(pool) => sqlx::query(sql).execute(pool).await.map(drop),
    };
    refused.unwrap_err().to_string()
}
