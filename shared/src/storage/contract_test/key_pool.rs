//! The key pool.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{MASTER_KEY, accept, database, generated, granted};
use crate::{
    custom_csr::Status,
    ids::CustomCsrId,
    storage::{Access, CompletionOutcome, Database, NewPoolKey, PoolAddition, PoolKey, Store},
    testing::now,
};

const LEASE: Duration = Duration::from_mins(5);

fn new_key(number: u8) -> NewPoolKey {
    NewPoolKey {
        id: format!("key-{number}"),
        spki_sha256: [number; 32],
        master_key_id: MASTER_KEY.into(),
        sealed_private_key: vec![number],
    }
}

async fn add(store: &dyn Store, number: u8) {
    assert_eq!(store.add_pool_key(&new_key(number), 100, now()).await.unwrap(), PoolAddition::Added);
}

async fn lease(store: &dyn Store) -> Option<PoolKey> {
    store.lease_pool_key(MASTER_KEY, LEASE).await.unwrap()
}

async fn status(store: &dyn Store, id: CustomCsrId) -> Status {
    store.find_custom_csr(&crate::testing::zone("z1"), id).await.unwrap().unwrap().status
}

#[tokio::test]
async fn a_pool_key_goes_to_one_custom_csr_and_leaves_the_pool_with_it() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    add(&*store, 1).await;
    let key = lease(&*store).await.unwrap();
    assert_eq!((key.spki_sha256, key.sealed_private_key.as_slice()), ([1; 32], [1].as_slice()));
    assert_eq!(store.count_pool_keys().await.unwrap(), 1, "a leased key is in the pool still");
    assert_eq!(store.complete_pooled(id, &generated(1), &key, now()).await.unwrap(), CompletionOutcome::Completed);
    assert_eq!((status(&*store, id).await, store.count_pool_keys().await.unwrap()), (Status::Active, 0));
}

#[tokio::test]
async fn a_key_that_the_database_has_is_used_no_second_time_wherever_it_is() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let ids = [accept(&*store, &scope).await, accept(&*store, &scope).await];
    add(&*store, 1).await;
    // A fresh key that lies in the key pool, free or leased.
    assert_eq!(store.complete_generation(ids[0], &generated(1), now()).await.unwrap(), CompletionOutcome::KeyInUse);
    let key = lease(&*store).await.unwrap();
    assert_eq!(store.complete_generation(ids[0], &generated(1), now()).await.unwrap(), CompletionOutcome::KeyInUse);
    assert_eq!(store.complete_pooled(ids[0], &generated(1), &key, now()).await.unwrap(), CompletionOutcome::Completed);
    // A key for the key pool that a custom CSR has, or the key pool itself.
    let again = |number, id: &str| NewPoolKey { id: id.to_owned(), ..new_key(number) };
    assert_eq!(store.add_pool_key(&again(1, "a"), 100, now()).await.unwrap(), PoolAddition::KeyInUse);
    add(&*store, 2).await;
    assert_eq!(store.add_pool_key(&again(2, "b"), 100, now()).await.unwrap(), PoolAddition::KeyInUse);
    assert_eq!(store.count_pool_keys().await.unwrap(), 1);
    // A key of the key pool that a custom CSR has got meanwhile.
    let key = lease(&*store).await.unwrap();
    assert_eq!(store.complete_pooled(ids[1], &generated(1), &key, now()).await.unwrap(), CompletionOutcome::KeyInUse);
    assert_eq!(status(&*store, ids[1]).await, Status::Pending);
    assert_eq!(store.complete_generation(ids[1], &generated(3), now()).await.unwrap(), CompletionOutcome::Completed);
    // A deleted one's key is no longer known, and a result that comes twice changes nothing.
    assert_eq!(store.complete_generation(ids[1], &generated(3), now()).await.unwrap(), CompletionOutcome::NotPending);
}

#[tokio::test]
async fn of_many_that_lease_at_once_no_two_get_the_same_key() {
    let (test, store) = database().await;
    for number in 0..20 {
        add(&*store, number).await;
    }
    let other = Database::open(&test.location, Access::default()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..30 {
        let store = Arc::clone(if number % 2 == 0 { &store } else { &other.store });
        tasks.spawn(async move {
            loop {
                // A pool of connections that is used up for a moment is no answer.
                if let Ok(leased) = store.lease_pool_key(MASTER_KEY, LEASE).await {
                    return leased;
                }
            }
        });
    }
    let leased: Vec<_> = tasks.join_all().await.into_iter().flatten().map(|key| key.id).collect();
    assert_eq!((leased.len(), leased.iter().collect::<HashSet<_>>().len()), (20, 20));
    other.close().await;
}

#[tokio::test]
async fn a_key_whose_lease_expired_is_deleted_and_never_leased_again() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    add(&*store, 1).await;
    // A worker that crashes between the lease and the completion.
    let key = lease(&*store).await.unwrap();
    assert!(lease(&*store).await.is_none());
    assert_eq!(store.purge(now(), now(), now()).await.unwrap().pool_keys, 0, "the lease holds");
    let late = now().plus(LEASE).plus(Duration::from_secs(1));
    assert!(store.lease_pool_key(MASTER_KEY, LEASE).await.unwrap().is_none(), "expired is not free");
    assert_eq!(store.purge(now(), now(), late).await.unwrap().pool_keys, 1);
    // And should it come back after all, it gets nothing done.
    assert_eq!(store.complete_pooled(id, &generated(1), &key, late).await.unwrap(), CompletionOutcome::LeaseLost);
    assert_eq!(status(&*store, id).await, Status::Pending, "the row was rolled back");
}

#[tokio::test]
async fn a_key_for_a_custom_csr_that_is_no_longer_pending_stays_leased_until_it_is_discarded() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.complete_generation(id, &generated(9), now()).await.unwrap().is_completed());
    add(&*store, 1).await;
    let key = lease(&*store).await.unwrap();
    assert_eq!(store.complete_pooled(id, &generated(1), &key, now()).await.unwrap(), CompletionOutcome::NotPending);
    assert!(lease(&*store).await.is_none(), "it was unsealed: it is not free again");
    store.discard_pool_key(&PoolKey { lease_id: "another".into(), ..key.clone() }).await.unwrap();
    assert_eq!(store.count_pool_keys().await.unwrap(), 1, "not by someone else");
    store.discard_pool_key(&key).await.unwrap();
    assert_eq!(store.count_pool_keys().await.unwrap(), 0);
}

#[tokio::test]
async fn completions_in_one_commit_with_one_that_lost_its_lease_all_keep_their_own_outcome() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 20).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let id = accept(&*store, &scope).await;
        add(&*store, number).await;
        let mut key = lease(&*store).await.unwrap();
        let lost = number % 5 == 0;
        if lost {
            key.lease_id = "lost".into();
        }
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let completion = store.complete_pooled(id, &generated(number), &key, now()).await.unwrap();
            let (expected, left) =
                if lost { (CompletionOutcome::LeaseLost, Status::Pending) } else { (CompletionOutcome::Completed, Status::Active) };
            assert_eq!((completion, status(&*store, id).await), (expected, left));
        });
    }
    tasks.join_all().await;
    assert_eq!(store.count_pool_keys().await.unwrap(), 4);
}

#[tokio::test]
async fn several_processes_that_fill_the_pool_at_once_stop_at_its_size() {
    let (test, store) = database().await;
    let other = Database::open(&test.location, Access::default()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let store = Arc::clone(if number % 2 == 0 { &store } else { &other.store });
        tasks.spawn(async move {
            loop {
                if let Ok(added) = store.add_pool_key(&new_key(number), 10, now()).await {
                    return added;
                }
            }
        });
    }
    let added = tasks.join_all().await.into_iter().filter(|added| *added == PoolAddition::Added).count();
    assert_eq!((added, store.count_pool_keys().await.unwrap()), (10, 10));
    other.close().await;
}

#[tokio::test]
async fn pool_keys_keep_no_master_key_in_use_and_none_is_added_by_one_that_does_not_seal() {
    let (test, store) = database().await;
    add(&*store, 1).await;
    assert!(store.list_master_keys().await.unwrap().iter().all(|key| !key.in_use));
    assert!(store.lease_pool_key("another", LEASE).await.unwrap().is_none());
    test.execute("UPDATE master_keys SET current = 0").await;
    assert_eq!(store.add_pool_key(&new_key(2), 10, now()).await.unwrap(), PoolAddition::NoRoom, "by a worker that did not hear of it");
}

#[tokio::test]
async fn a_process_that_has_the_database_for_itself_begins_with_an_empty_pool() {
    let (test, store) = database().await;
    add(&*store, 1).await;
    assert_eq!(store.empty_pool().await.unwrap(), u64::from(!test.is_postgres()), "on a server others use it");
}
