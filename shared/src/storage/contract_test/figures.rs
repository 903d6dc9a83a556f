//! Figures for metrics.

use std::time::Duration;

use super::{
    accept,
    certificates::{active, certificate, chain},
    database, granted, start,
};
use crate::{
    ids::Scope,
    storage::{Figures, NewPoolKey, PoolAddition, Store},
    testing::{actor, now},
};

/// An upload whose certificate expires after this many hours.
async fn upload(store: &dyn Store, zone: &Scope, spki: u8, hours: u64) {
    let id = active(store, zone, spki).await;
    let new = certificate(zone, chain(id, spki, now().plus(Duration::from_hours(hours))));
    assert_eq!(store.accept_certificate(&new, &actor(), now()).await.unwrap(), None);
}

#[tokio::test]
async fn the_figures_tell_what_waits_what_runs_what_lies_ready_and_what_expires() {
    let (test, store) = database().await;
    let zone = granted(&*store, 100).await;
    let nothing = Figures { pending: 0, running: 0, oldest_pending_secs: None, key_pool_keys: 0, expiring: [0; 4] };
    assert_eq!(store.figures().await.unwrap(), nothing);
    for (spki, hours) in [(1, 1), (2, 24 * 2), (3, 24 * 10), (4, 24 * 20), (5, 24 * 20), (6, 24 * 31), (7, 1)] {
        upload(&*store, &zone, spki, hours).await;
    }
    // One has expired since.
    test.execute("UPDATE custom_certificates SET not_after = 1000000 WHERE id = (SELECT MAX(id) FROM custom_certificates)").await;
    let (oldest, begun) = (accept(&*store, &zone).await, accept(&*store, &zone).await);
    accept(&*store, &zone).await;
    test.execute(&format!("UPDATE custom_csrs SET created_at = created_at - 60000000 WHERE id = '{oldest}'")).await;
    start(&*store, begun).await.unwrap();
    let key = NewPoolKey { id: "k".into(), spki_sha256: [99; 32], master_key_id: super::MASTER_KEY.into(), sealed_private_key: vec![1] };
    assert_eq!(store.add_pool_key(&key, 10, now()).await.unwrap(), PoolAddition::Added);
    let figures = store.figures().await.unwrap();
    assert_eq!(figures, Figures { pending: 2, running: 1, key_pool_keys: 1, expiring: [1, 2, 3, 5], ..figures });
    let oldest = figures.oldest_pending_secs.unwrap();
    // A loaded machine may take its time between the acceptance and the question.
    assert!((59..600).contains(&oldest), "{oldest}");
}

#[tokio::test]
async fn the_connections_of_each_pool_are_idle_or_busy() {
    let (test, store) = database().await;
    store.ping().await.unwrap();
    let pools: Vec<_> = store.pools().into_iter().chain(test.database.queue.pool()).collect();
    let names: Vec<_> = pools.iter().map(|of| of.pool).collect();
    assert_eq!(names, if test.is_postgres() { ["store", "queue"].as_slice() } else { &["read", "write"] });
    assert!(pools.iter().map(|of| of.idle + of.busy).sum::<u64>() > 0, "{pools:?}");
}
