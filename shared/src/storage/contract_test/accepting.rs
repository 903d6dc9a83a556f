//! What is accepted, and what is refused.

use std::{sync::Arc, time::Duration};

use super::{
    accept, accept_new,
    certificates::{certificate, chain, tomorrow},
    database, granted, query,
};
use crate::{
    custom_csr::{KeyType, Status},
    ids::Scope,
    storage::{Acceptance, CertificateRefusal, Deletion, IDEMPOTENCY_KEY_LIFE, IdempotencyKey, NewCertificate, NewCustomCsr},
    testing::{account, actor, new_custom_csr, now, zone},
};

#[tokio::test]
async fn an_accepted_custom_csr_reads_back_as_it_was_given() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let new = new_custom_csr(&scope, KeyType::Rsa2048);
    let Acceptance::Accepted(accepted) = store.accept_custom_csr(&new, &actor(), now()).await.unwrap() else { panic!("not accepted") };
    let [accepted] = &*accepted else { panic!("not one") };
    assert_eq!(accepted.request, new.request);
    assert_eq!((accepted.status, accepted.account.as_ref()), (Status::Pending, Some(account("a1").id())));
    assert_eq!(store.find_custom_csr(&scope, new.id).await.unwrap().as_ref(), Some(accepted));
}

#[tokio::test]
async fn custom_csrs_of_every_key_type_are_accepted_and_the_database_stays_whole() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    for key_type in KeyType::ALL {
        let id = accept_new(&*store, &new_custom_csr(&scope, *key_type)).await;
        assert_eq!(store.find_custom_csr(&scope, id).await.unwrap().unwrap().request.key_type, *key_type);
    }
    if !test.is_postgres() {
        assert_eq!(test.number("SELECT COUNT(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'").await, 0);
        assert_eq!(test.number("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_changes'").await, 0);
    }
}

#[tokio::test]
async fn a_custom_csr_of_another_scope_is_neither_found_nor_listed_nor_deleted() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    for other in [zone("z2"), account("z1"), account("a1")] {
        assert_eq!(store.find_custom_csr(&other, id).await.unwrap(), None);
        assert_eq!(store.list_custom_csrs(&other, &query()).await.unwrap().total, 0);
        assert_eq!(store.delete_custom_csr(&other, id, &actor(), now()).await.unwrap(), Deletion::NotFound);
    }
    assert!(store.find_custom_csr(&scope, id).await.unwrap().is_some());
}

#[tokio::test]
async fn nothing_is_accepted_without_a_grant_or_without_a_quota_or_beyond_it() {
    let (_test, store) = database().await;
    let scope = zone("z1");
    let attempt = || async { store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await.unwrap() };
    assert_eq!(attempt().await, Acceptance::NotGranted);
    store.grant_scope(&scope, None, None, &actor(), now()).await.unwrap();
    assert_eq!(attempt().await, Acceptance::NoQuota);
    store.grant_scope(&scope, None, Some(1), &actor(), now()).await.unwrap();
    let id = accept(&*store, &scope).await;
    assert_eq!(attempt().await, Acceptance::QuotaUsedUp(1));
    assert_eq!(store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap(), Deletion::Deleted);
    let id = accept(&*store, &scope).await;
    assert!(store.revoke_scope(&scope, &actor(), now()).await.unwrap());
    assert!(!store.revoke_scope(&scope, &actor(), now()).await.unwrap());
    assert_eq!(attempt().await, Acceptance::NotGranted);
    assert!(store.find_custom_csr(&scope, id).await.unwrap().is_some(), "what exists stays readable");
    store.grant_scope(&scope, None, Some(0), &actor(), now()).await.unwrap();
    assert_eq!(attempt().await, Acceptance::QuotaUsedUp(0));
    assert_eq!(store.find_scope(&scope).await.unwrap().unwrap().used, 1);
}

#[tokio::test]
async fn fifty_concurrent_requests_never_get_one_more_than_the_quota() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 20).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (store, new) = (Arc::clone(&store), new_custom_csr(&scope, KeyType::P256v1));
        tasks.spawn(async move { store.accept_custom_csr(&new, &actor(), now()).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Acceptance::Accepted(_))).count(), 20);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Acceptance::QuotaUsedUp(20)).count(), 30);
    assert_eq!(store.list_custom_csrs(&scope, &query()).await.unwrap().total, 20);
}

#[tokio::test]
async fn a_key_that_came_before_is_replayed_with_the_same_body_and_refused_with_another_until_it_is_too_old() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 2).await;
    let with_key = |body: u8| NewCustomCsr {
        idempotency_key: Some(IdempotencyKey { key_sha256: vec![1; 32], body_sha256: vec![body; 32] }),
        ..new_custom_csr(&scope, KeyType::P256v1)
    };
    let id = accept_new(&*store, &with_key(1)).await;
    assert_eq!(store.accept_custom_csr(&with_key(1), &actor(), now()).await.unwrap(), Acceptance::Replayed(vec![id]));
    assert_eq!(store.accept_custom_csr(&with_key(2), &actor(), now()).await.unwrap(), Acceptance::KeyReused);
    assert_eq!(store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap(), Deletion::Deleted);
    assert_eq!(
        store.accept_custom_csr(&with_key(1), &actor(), now()).await.unwrap(),
        Acceptance::Replayed(vec![id]),
        "deleted, but remembered"
    );
    let tomorrow = now().plus(IDEMPOTENCY_KEY_LIFE).plus(Duration::from_secs(1));
    assert!(matches!(store.accept_custom_csr(&with_key(2), &actor(), tomorrow).await.unwrap(), Acceptance::Accepted(_)));
    let purged = store.purge(now(), now(), tomorrow.plus(IDEMPOTENCY_KEY_LIFE).plus(Duration::from_secs(1))).await.unwrap();
    assert_eq!(purged.idempotency_keys, 1);
}

#[tokio::test]
async fn a_key_of_a_refused_request_is_free_again() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 0).await;
    let key = IdempotencyKey { key_sha256: vec![1; 32], body_sha256: vec![1; 32] };
    let new = NewCustomCsr { idempotency_key: Some(key), ..new_custom_csr(&scope, KeyType::P256v1) };
    assert_eq!(store.accept_custom_csr(&new, &actor(), now()).await.unwrap(), Acceptance::QuotaUsedUp(0));
    granted(&*store, 1).await;
    accept_new(&*store, &new).await;
}

#[tokio::test]
async fn fifty_equal_requests_at_once_make_one_custom_csr() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 50).await;
    let key = IdempotencyKey { key_sha256: vec![1; 32], body_sha256: vec![1; 32] };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let new = NewCustomCsr { idempotency_key: Some(key.clone()), ..new_custom_csr(&scope, KeyType::P256v1) };
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.accept_custom_csr(&new, &actor(), now()).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    let accepted: Vec<_> =
        outcomes.iter().filter_map(|o| if let Acceptance::Accepted(csrs) = o { Some(csrs[0].id) } else { None }).collect();
    let [id] = accepted.as_slice() else { panic!("{accepted:?}") };
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Acceptance::Replayed(vec![*id])).count(), 49);
    assert_eq!(store.find_scope(&scope).await.unwrap().unwrap().used, 1);
}

#[tokio::test]
async fn requests_in_one_commit_of_which_some_are_refused_leave_nothing_of_the_refused() {
    let (test, store) = database().await;
    let (scope, full) = (granted(&*store, 100).await, zone("full"));
    store.grant_scope(&full, None, Some(0), &actor(), now()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60_u8 {
        let scope = if number % 3 == 0 { &full } else { &scope };
        let key = IdempotencyKey { key_sha256: vec![number; 32], body_sha256: vec![1; 32] };
        let new = NewCustomCsr { idempotency_key: Some(key), ..new_custom_csr(scope, KeyType::P256v1) };
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.accept_custom_csr(&new, &actor(), now()).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Acceptance::Accepted(_))).count(), 40);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Acceptance::QuotaUsedUp(0)).count(), 20);
    assert_eq!(store.find_scope(&scope).await.unwrap().unwrap().used, 40);
    for table in ["custom_csrs", "idempotency_keys"] {
        assert_eq!(test.number(&format!("SELECT COUNT(*) FROM {table}")).await, 40, "{table}");
    }
    let jobs_of_rows = test.number("SELECT COUNT(DISTINCT job_id) FROM custom_csrs WHERE job_id IN (SELECT id FROM {jobs})").await;
    assert_eq!(jobs_of_rows, test.number("SELECT COUNT(*) FROM {jobs}").await);
}

/// Reads at the same time share a statement; each is still answered from its own scope alone.
#[tokio::test]
async fn reads_at_the_same_time_find_each_custom_csr_in_its_own_scope_only() {
    let (_test, store) = database().await;
    let scopes = ["z1", "z2", "z3"].map(zone);
    let mut made = Vec::new();
    for scope in &scopes {
        store.grant_scope(scope, None, Some(10), &actor(), now()).await.unwrap();
        made.push((scope.clone(), accept(&*store, scope).await));
    }
    let mut reads = tokio::task::JoinSet::new();
    for round in 0..180 {
        let (owner, id) = made[round % 3].clone();
        let (asked, store) = (scopes[round / 3 % 3].clone(), Arc::clone(&store));
        reads.spawn(async move {
            let found = store.find_custom_csr(&asked, id).await.unwrap();
            assert_eq!(found.map(|csr| (csr.scope, csr.id)), (asked == owner).then_some((owner, id)));
        });
    }
    assert_eq!(reads.join_all().await.len(), 180);
}

#[tokio::test]
async fn fifty_concurrent_requests_never_make_one_more_pending_than_may_be_and_a_result_makes_room() {
    let (_test, store) = database().await;
    let (scope, other) = (granted(&*store, 100).await, zone("z2"));
    store.grant_scope(&other, None, Some(100), &actor(), now()).await.unwrap();
    let new = |scope: &Scope| NewCustomCsr { max_pending: 20, ..new_custom_csr(scope, KeyType::P256v1) };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (store, new) = (Arc::clone(&store), new(&scope));
        tasks.spawn(async move { store.accept_custom_csr(&new, &actor(), now()).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Acceptance::Accepted(_))).count(), 20);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Acceptance::TooManyPending).count(), 30);
    assert_eq!(store.find_scope(&scope).await.unwrap().unwrap().used, 20, "a refused one uses up no quota");
    accept_new(&*store, &new(&other)).await;
    let pending = store.list_custom_csrs(&scope, &query()).await.unwrap().rows;
    assert!(store.fail_generation(pending[0].id, "no luck", now()).await.unwrap());
    accept_new(&*store, &new(&scope)).await;
    assert_eq!(store.accept_custom_csr(&new(&scope), &actor(), now()).await.unwrap(), Acceptance::TooManyPending);
    assert_eq!(store.delete_custom_csr(&scope, pending[1].id, &actor(), now()).await.unwrap(), Deletion::Deleted);
    accept_new(&*store, &new(&scope)).await;
}

#[tokio::test]
async fn a_scope_has_ten_thousand_idempotency_keys_and_not_one_more_whatever_it_deletes() {
    let (test, store) = database().await;
    let (scope, other) = (granted(&*store, 10).await, zone("z2"));
    store.grant_scope(&other, None, Some(10), &actor(), now()).await.unwrap();
    let with_key = |scope: &Scope, key: u8| NewCustomCsr {
        idempotency_key: Some(IdempotencyKey { key_sha256: vec![key; 32], body_sha256: vec![1; 32] }),
        ..new_custom_csr(scope, KeyType::P256v1)
    };
    let digits = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 \
        UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let number = "CAST(a.d * 1000 + b.d * 100 + c.d * 10 + e.d AS TEXT)";
    let key = if test.is_postgres() { format!("CAST({number} AS BYTEA)") } else { format!("CAST({number} AS BLOB)") };
    test.execute(&format!(
        "INSERT INTO idempotency_keys (scope, key_sha256, body_sha256, custom_csr_id, created_at) SELECT '{scope}', {key}, {key}, '', {} \
         FROM {digits} a CROSS JOIN {digits} b CROSS JOIN {digits} c CROSS JOIN {digits} e WHERE a.d < 9 OR b.d < 9 OR c.d < 9 OR e.d < 9",
        now().micros()
    ))
    .await;
    // 9,999 by now.
    let last = with_key(&scope, 1);
    let id = accept_new(&*store, &last).await;
    assert_eq!(store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap(), Deletion::Deleted);
    assert_eq!(store.accept_custom_csr(&with_key(&scope, 2), &actor(), now()).await.unwrap(), Acceptance::TooManyKeys);
    assert_eq!(store.find_scope(&scope).await.unwrap().unwrap().used, 0);
    let key = with_key(&scope, 2).idempotency_key;
    let upload = NewCertificate { idempotency_key: key, ..certificate(&scope, chain(id, 1, tomorrow())) };
    assert_eq!(store.accept_certificate(&upload, &actor(), now()).await.unwrap(), Some(CertificateRefusal::TooManyKeys));
    assert_eq!(test.number("SELECT COUNT(*) FROM idempotency_keys").await, 10_000, "the refused one is not remembered");
    assert_eq!(
        store.accept_custom_csr(&with_key(&scope, 1), &actor(), now()).await.unwrap(),
        Acceptance::Replayed(vec![id]),
        "still known"
    );
    accept(&*store, &scope).await;
    accept_new(&*store, &with_key(&other, 2)).await;
    // What is too old makes room.
    test.execute(&format!("UPDATE idempotency_keys SET created_at = 0 WHERE scope = '{scope}'")).await;
    store.purge(now(), now(), now()).await.unwrap();
    accept_new(&*store, &with_key(&scope, 2)).await;
}
