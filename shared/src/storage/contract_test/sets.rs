//! Sets: custom CSRs of one request that differ in their keys alone.

use super::{accept_new, certificates::tomorrow, database, granted, query, start};
use crate::{
    custom_csr::{CustomCsr, KeyType},
    ids::{CustomCsrId, Scope, SetId},
    storage::{Acceptance, AuditQuery, Deletion, IdempotencyKey, ListQuery, NewCustomCsr, Order, Restoration, Store},
    testing::{account, actor, new_custom_csr, now, zone},
};

const KEY_TYPES: [KeyType; 2] = [KeyType::Rsa2048, KeyType::P256v1];

fn set(scope: &Scope, key: Option<&IdempotencyKey>) -> Vec<NewCustomCsr> {
    let set_id = Some(SetId::new(now()));
    let one = |key_type| NewCustomCsr { set_id, idempotency_key: key.cloned(), ..new_custom_csr(scope, key_type) };
    KEY_TYPES.map(one).to_vec()
}

fn key(body: u8) -> IdempotencyKey {
    IdempotencyKey { key_sha256: vec![1; 32], body_sha256: vec![body; 32] }
}

fn ids(csrs: &[CustomCsr]) -> Vec<CustomCsrId> {
    csrs.iter().map(|csr| csr.id).collect()
}

async fn attempt(store: &dyn Store, new: &[NewCustomCsr]) -> Acceptance {
    store.accept_set(new, &actor(), now()).await.unwrap()
}

async fn accepted(store: &dyn Store, new: &[NewCustomCsr]) -> Vec<CustomCsr> {
    match attempt(store, new).await {
        Acceptance::Accepted(csrs) => csrs,
        other => panic!("not accepted: {other:?}"),
    }
}

async fn used(store: &dyn Store, scope: &Scope) -> u32 {
    store.find_scope(scope).await.unwrap().unwrap().used
}

#[tokio::test]
async fn a_set_is_accepted_whole_and_each_of_it_is_a_custom_csr_of_its_own() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 5).await;
    let new = set(&scope, None);
    let csrs = accepted(&*store, &new).await;
    assert_eq!(ids(&csrs), new.iter().map(|new| new.id).collect::<Vec<_>>());
    assert_eq!(csrs.iter().map(|csr| csr.request.key_type).collect::<Vec<_>>(), KEY_TYPES);
    for csr in &csrs {
        assert_eq!(store.find_custom_csr(&scope, csr.id).await.unwrap().as_ref(), Some(csr));
        let started = start(&*store, csr.id).await.unwrap();
        assert_eq!(started.custom_csr.set_id, new[0].set_id, "a worker makes it as any other");
    }
    assert_eq!(used(&*store, &scope).await, 2, "the quota counts each");
    let entries = store.read_audit(AuditQuery::default()).await.unwrap().next().await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.action == "create").count(), 2);
    assert_eq!(ids(&store.list_set(&scope, new[0].set_id.unwrap()).await.unwrap()), ids(&csrs));
    assert_eq!(store.list_set(&zone("z2"), new[0].set_id.unwrap()).await.unwrap(), [], "another scope's");
}

#[tokio::test]
async fn a_set_for_which_quota_or_bound_do_not_suffice_leaves_nothing() {
    let (test, store) = database().await;
    let scope = granted(&*store, 3).await;
    accepted(&*store, &set(&scope, None)).await;
    assert_eq!(attempt(&*store, &set(&scope, Some(&key(1)))).await, Acceptance::QuotaUsedUp(3), "one is left of it");
    assert_eq!(test.number("SELECT COUNT(*) FROM custom_csrs").await, 2);
    assert_eq!(test.number("SELECT COUNT(*) FROM idempotency_keys").await, 0);
    accept_new(&*store, &new_custom_csr(&scope, KeyType::P256v1)).await;

    store.grant_scope(&scope, account("a1").id().into(), Some(100), &actor(), now()).await.unwrap();
    let bounded = |most| set(&scope, None).into_iter().map(|new| NewCustomCsr { max_pending: most, ..new }).collect::<Vec<_>>();
    assert_eq!(attempt(&*store, &bounded(4)).await, Acceptance::TooManyPending, "three are pending");
    accepted(&*store, &bounded(5)).await;
    assert_eq!(used(&*store, &scope).await, 5);
}

#[tokio::test]
async fn a_repeated_request_finds_the_set_that_it_made_and_so_does_one_at_the_same_time() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, new) = (std::sync::Arc::clone(&store), set(&scope, Some(&key(1))));
        tasks.spawn(async move { attempt(&*store, &new).await });
    }
    let (mut made, mut found) = (Vec::new(), Vec::new());
    for outcome in tasks.join_all().await {
        match outcome {
            Acceptance::Accepted(csrs) => made.push(ids(&csrs)),
            Acceptance::Replayed(ids) => found.push(ids),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((made.len(), found.len()), (1, 19));
    assert!(found.iter().all(|ids| *ids == made[0]), "{made:?} {found:?}");
    assert_eq!(used(&*store, &scope).await, 2);
    assert_eq!(attempt(&*store, &set(&scope, Some(&key(2)))).await, Acceptance::KeyReused);
    // What comes to the same set later is not what the request made.
    let set_id = store.find_custom_csr(&scope, made[0][0]).await.unwrap().unwrap().set_id;
    accept_new(&*store, &NewCustomCsr { set_id, replaces: Some(made[0][0]), ..new_custom_csr(&scope, KeyType::Rsa2048) }).await;
    assert_eq!(attempt(&*store, &set(&scope, Some(&key(1)))).await, Acceptance::Replayed(made.remove(0)));
}

#[tokio::test]
async fn a_record_that_an_older_version_took_over_tells_of_no_set() {
    let (test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let first = accepted(&*store, &set(&scope, Some(&key(1)))).await;
    let single = accept_new(&*store, &new_custom_csr(&scope, KeyType::P256v1)).await;
    // As it writes: it does not know the column of the others.
    test.execute(&format!("UPDATE idempotency_keys SET custom_csr_id = '{single}' WHERE custom_csr_id = '{}'", first[0].id)).await;
    assert_eq!(attempt(&*store, &set(&scope, Some(&key(1)))).await, Acceptance::Replayed(vec![single]));
}

#[tokio::test]
async fn a_list_of_a_set_has_its_custom_csrs_alone_in_every_order_and_with_other_filters() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let (one, other) = (set(&scope, None), set(&scope, None));
    for new in [&one, &other] {
        accepted(&*store, new).await;
    }
    accept_new(&*store, &new_custom_csr(&scope, KeyType::P256v1)).await;
    let of_one = ListQuery { set_id: one[0].set_id, ..query() };
    for order in [Order::CreatedAt, Order::Name, Order::AccountTag] {
        for (direction, expected) in
            [(crate::storage::Direction::Asc, [one[0].id, one[1].id]), (crate::storage::Direction::Desc, [one[1].id, one[0].id])]
        {
            let page = store.list_custom_csrs(&scope, &ListQuery { order, direction, ..of_one.clone() }).await.unwrap();
            assert_eq!((ids(&page.rows), page.total), (expected.to_vec(), 2), "{order:?} {direction:?}");
        }
    }
    let rsa = store.list_custom_csrs(&scope, &ListQuery { key_type: Some(KeyType::Rsa2048), ..of_one.clone() }).await.unwrap();
    assert_eq!((ids(&rsa.rows), rsa.total), (vec![one[0].id], 1));
    let second = store.list_custom_csrs(&scope, &ListQuery { page: 2, per_page: 1, ..of_one.clone() }).await.unwrap();
    assert_eq!((ids(&second.rows), second.total), (vec![one[0].id], 2));
    assert_eq!(store.list_custom_csrs(&zone("z2"), &of_one).await.unwrap().total, 0);
    let unknown = ListQuery { set_id: Some(SetId::new(now())), ..query() };
    assert_eq!(store.list_custom_csrs(&scope, &unknown).await.unwrap().total, 0);
}

#[tokio::test]
async fn one_of_a_set_that_is_deleted_and_restored_is_in_it_again() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let csrs = accepted(&*store, &set(&scope, None)).await;
    let hidden = store.hide_custom_csr(&scope, csrs[0].id, tomorrow(), &actor(), now()).await.unwrap();
    assert_eq!(hidden, Deletion::Deleted);
    let set_id = csrs[0].set_id.unwrap();
    assert_eq!(ids(&store.list_set(&scope, set_id).await.unwrap()), [csrs[1].id], "the other one stays");
    let Restoration::Restored(restored) = store.restore_custom_csr(&scope, csrs[0].id, 100, &actor(), now()).await.unwrap() else {
        panic!("not restored")
    };
    assert_eq!(*restored, csrs[0]);
    assert_eq!(ids(&store.list_set(&scope, set_id).await.unwrap()), ids(&csrs));
}
