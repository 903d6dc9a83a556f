//! Several master keys: which one seals, sealing anew, forgetting one, and who has which.

use std::time::Duration;

use super::{MASTER_KEY, accept, database, generated, granted, start};
use crate::{
    ids::CustomCsrId,
    storage::{KeyHolder, NewPoolKey, PoolAddition, Resealed, Retirement, SealedRecord, Store, StoreError},
    testing::{actor, now, zone},
};

const NEW: &str = "fedcba9876543210";

async fn active(store: &dyn Store, number: u8) -> CustomCsrId {
    let id = accept(store, &zone("z1")).await;
    start(store, id).await.unwrap();
    assert!(store.complete_generation(id, &generated(number), now()).await.unwrap().is_completed());
    id
}

async fn use_key(store: &dyn Store, id: &str) -> bool {
    store.use_master_key(id, &actor(), now()).await.unwrap()
}

async fn sealed_by(store: &dyn Store, id: &str) -> Vec<SealedRecord> {
    store.list_sealed_by(id, None, 100).await.unwrap()
}

fn anew(record: &SealedRecord) -> Resealed {
    Resealed { record: record.clone(), master_key_id: NEW.to_owned(), resealed: vec![99; 100] }
}

async fn counts(store: &dyn Store) -> Vec<(String, bool, u64, u64)> {
    store.count_sealed().await.unwrap().into_iter().map(|key| (key.id, key.current, key.sealed, key.pool_keys)).collect()
}

#[tokio::test]
async fn the_current_master_key_changes_in_one_step_and_useless_pool_keys_go() {
    let (_test, store) = database().await;
    let pool_key = |number: u8, master_key_id: &str| NewPoolKey {
        id: format!("key-{number}"),
        spki_sha256: [number; 32],
        master_key_id: master_key_id.to_owned(),
        sealed_private_key: vec![number],
    };
    for number in [1, 2] {
        assert_eq!(store.add_pool_key(&pool_key(number, MASTER_KEY), 9, now()).await.unwrap(), PoolAddition::Added);
    }
    let leased = store.lease_pool_key(MASTER_KEY, Duration::from_mins(5)).await.unwrap().unwrap();
    assert!(use_key(&*store, NEW).await);
    assert!(!use_key(&*store, NEW).await, "it is the current one already");
    assert_eq!(counts(&*store).await, [(MASTER_KEY.to_owned(), false, 0, 1), (NEW.to_owned(), true, 0, 0)], "a leased one is somebody's");
    assert_eq!(store.add_pool_key(&pool_key(3, MASTER_KEY), 9, now()).await.unwrap(), PoolAddition::NoRoom, "nobody could use it");
    assert_eq!(store.add_pool_key(&pool_key(4, NEW), 9, now()).await.unwrap(), PoolAddition::Added);
    assert_eq!(store.retire_master_key(MASTER_KEY, &actor(), now()).await.unwrap(), Retirement::Retired);
    assert_eq!(counts(&*store).await, [(NEW.to_owned(), true, 0, 1)], "the leased one went with its master key: {}", leased.id);
}

#[tokio::test]
async fn records_are_sealed_anew_in_order_and_what_changed_meanwhile_stays_as_it_is() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let ids = [active(&*store, 1).await, active(&*store, 2).await, active(&*store, 3).await];
    let before = sealed_by(&*store, MASTER_KEY).await;
    assert_eq!(before.iter().map(|record| record.id.clone()).collect::<Vec<_>>(), ids.map(|id| id.to_string()));
    assert_eq!(before[0].binding().scope, scope.to_string());
    let after = store.list_sealed_by(MASTER_KEY, Some(&before[0]), 1).await.unwrap();
    assert_eq!(after[0].id, ids[1].to_string());

    assert_eq!(store.reseal(&[anew(&before[0])]).await.unwrap(), 0, "the new master key is not the current one");
    use_key(&*store, NEW).await;
    store.delete_custom_csr(&scope, ids[1], &actor(), now()).await.unwrap();
    let all: Vec<_> = before.iter().map(anew).collect();
    assert_eq!(store.reseal(&all).await.unwrap(), 2, "one was deleted");
    assert!(store.find_custom_csr(&scope, ids[1]).await.unwrap().is_none());
    assert_eq!(store.reseal(&all).await.unwrap(), 0, "they are no longer what was read");
    assert!(sealed_by(&*store, MASTER_KEY).await.is_empty());
    let records = sealed_by(&*store, NEW).await;
    assert!(records.len() == 2 && records.iter().all(|record| record.sealed == [99; 100]));
}

#[tokio::test]
async fn a_master_key_is_forgotten_only_where_nothing_needs_it_and_nothing_comes_after() {
    let (test, store) = database().await;
    granted(&*store, 10).await;
    active(&*store, 1).await;
    let late = accept(&*store, &zone("z1")).await;
    start(&*store, late).await.unwrap();
    let retire = async |id: &str| store.retire_master_key(id, &actor(), now()).await.unwrap();
    assert_eq!(retire(MASTER_KEY).await, Retirement::Current);
    assert_eq!(retire(NEW).await, Retirement::Unknown);
    use_key(&*store, NEW).await;
    assert_eq!(retire(MASTER_KEY).await, Retirement::Needed);
    let records: Vec<_> = sealed_by(&*store, MASTER_KEY).await.iter().map(anew).collect();
    assert_eq!(store.reseal(&records).await.unwrap(), 1);
    assert_eq!(retire(MASTER_KEY).await, Retirement::Retired);
    assert_eq!(store.list_retired().await.unwrap(), [MASTER_KEY]);
    let refused = store.complete_generation(late, &generated(2), now()).await;
    assert!(matches!(refused, Err(StoreError::Internal(_))), "a worker that heard of nothing cannot store with it: {refused:?}");
    assert_eq!(test.number("SELECT COUNT(*) FROM custom_csrs WHERE status = 'pending' AND attempts = 0").await, 1);
    assert_eq!(test.number("SELECT COUNT(*) FROM audit WHERE action IN ('key_use', 'key_retire')").await, 2);
    assert!(use_key(&*store, MASTER_KEY).await, "one that was retired may be used again");
    assert!(store.list_retired().await.unwrap().is_empty());
}

#[tokio::test]
async fn live_processes_say_which_master_keys_they_have() {
    let (test, store) = database().await;
    let holder = |id: &str, keys: &[&str]| KeyHolder {
        id: id.to_owned(),
        name: format!("host:{id}"),
        master_key_ids: keys.iter().map(|key| (*key).to_owned()).collect(),
        sealing_id: MASTER_KEY.to_owned(),
    };
    let (one, two) = (holder("one", &[MASTER_KEY]), holder("two", &[MASTER_KEY, NEW]));
    let lease = Duration::from_mins(1);
    store.report_key_holder(&two, lease).await.unwrap();
    store.report_key_holder(&one, lease).await.unwrap();
    assert_eq!(store.list_key_holders().await.unwrap(), [one.clone(), two.clone()]);
    store.report_key_holder(&holder("one", &[NEW]), lease).await.unwrap();
    assert_eq!(store.list_key_holders().await.unwrap(), [holder("one", &[NEW]), two.clone()]);
    store.report_key_holder(&two, Duration::ZERO).await.unwrap();
    assert_eq!(store.list_key_holders().await.unwrap(), [holder("one", &[NEW])], "one that ended counts no more");
    assert_eq!(test.number("SELECT COUNT(*) FROM key_holders").await, 2, "but is remembered for a while");
}
