//! Many requests at once, of which some wait or have left.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{accept, database, generated, granted};
use crate::{
    custom_csr::KeyType,
    storage::{Acceptance, Queue, StoreError},
    testing::{actor, new_custom_csr, now, zone},
};

#[tokio::test]
async fn a_locked_zone_keeps_no_other_zone_waiting() {
    let (test, store) = database().await;
    let Queue::Postgres(pool) = &test.database.queue else { return };
    let scopes: Vec<_> = (0..=16).map(|number| zone(&format!("z{number}"))).collect();
    for scope in &scopes {
        store.grant_scope(scope, None, Some(1_000), &actor(), now()).await.unwrap();
    }
    let mut tx = pool.begin_with("BEGIN").await.unwrap();
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *tx).await.unwrap();
    sqlx::query("UPDATE scopes SET used = used WHERE scope = 'zones/z0'").execute(&mut *tx).await.unwrap();
    let mut blocked = JoinSet::new();
    for _ in 0..32 {
        let (store, scope) = (Arc::clone(&store), scopes[0].clone());
        blocked.spawn(async move {
            loop {
                let new = new_custom_csr(&scope, KeyType::P256v1);
                let outcome = store.accept_custom_csr(&new, &actor(), now()).await;
                assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "the zone is locked: {outcome:?}");
            }
        });
    }
    let mut others = JoinSet::new();
    for (client, scope) in scopes.into_iter().skip(1).enumerate() {
        let store = Arc::clone(&store);
        others.spawn(async move {
            let mut took = Vec::new();
            for number in 0..15 {
                let began = Instant::now();
                let id = accept(&*store, &scope).await;
                let mut made = generated(0);
                made.spki_sha256[..2].copy_from_slice(&[u8::try_from(client).unwrap(), number]);
                assert!(store.complete_generation(id, &made, now()).await.unwrap().is_completed());
                took.push(began.elapsed());
            }
            took
        });
    }
    let mut took: Vec<_> = others.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    println!("accepted and completed: median {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
    blocked.shutdown().await;
    tx.rollback().await.unwrap();
    accept(&*store, &zone("z0")).await;
}

#[tokio::test]
async fn what_waits_for_writers_when_its_caller_leaves_is_not_written() {
    let (test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let locked = test.lock_writers().await;
    let mut asked = JoinSet::new();
    for _ in 0..30 {
        let (store, new) = (Arc::clone(&store), new_custom_csr(&scope, KeyType::P256v1));
        asked.spawn(tokio::time::timeout(Duration::from_millis(100), async move { store.accept_custom_csr(&new, &actor(), now()).await }));
        tokio::task::yield_now().await;
    }
    for outcome in asked.join_all().await {
        assert!(!matches!(outcome, Ok(Ok(Acceptance::Accepted(_)))), "nobody writes: {outcome:?}");
    }
    drop(locked);
    // What had begun may be written, before what comes after it.
    let id = loop {
        match store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await {
            Ok(Acceptance::Accepted(csrs)) => break csrs[0].id,
            Err(StoreError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(store.find_custom_csr(&scope, id).await.unwrap().is_some());
    let used = store.find_scope(&scope).await.unwrap().unwrap().used;
    assert!(used < 10, "{used} of 30 were written for nobody");
}
