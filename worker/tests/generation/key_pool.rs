//! RSA keys made ahead.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use shared::{
    custom_csr::{KeyType, Status},
    seal::Binding,
    storage::{NewPoolKey, PoolAddition, Store},
    testing::now,
};
use tokio::time::Instant;
use worker::{Limits, keys::aws_lc::AwsLc};

use crate::support::{Remembering, World, scripted};

async fn until_the_pool_has(store: &dyn Store, keys: u64) {
    let end = Instant::now() + Duration::from_mins(1);
    while store.count_pool_keys().await.unwrap() != keys {
        assert!(Instant::now() < end, "the pool does not come to {keys} keys");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn keys_made_ahead_are_used_each_once_and_made_again() {
    let world = World { key_pool_size: 3, ..World::new().await };
    let keys = Arc::new(Mutex::new(0));
    let made = Arc::clone(&keys);
    let workers = world.workers(
        scripted(move |_| {
            *made.lock().unwrap() += 1;
            None
        }),
        Limits::default(),
    );
    until_the_pool_has(&**world.store(), 3).await;
    let mut requests = HashSet::new();
    for _ in 0..5 {
        let csr = world.ended(world.accept(KeyType::Rsa2048).await).await;
        assert_eq!((csr.status, csr.error), (Status::Active, None));
        assert!(requests.insert(csr.csr_pem.unwrap()));
    }
    until_the_pool_has(&**world.store(), 3).await;
    workers.drain(Duration::from_secs(10)).await;
    // The database itself refuses a key that was used before.
    assert_eq!(*keys.lock().unwrap(), 8, "five that were used, and three ahead");
    let sealed = world.store().list_sealed(None, 1).await.unwrap().remove(0);
    let (id, scope) = (sealed.id.to_string(), sealed.scope.to_string());
    let binding = Binding::custom_csr(&id, &scope, &sealed.spki_sha256);
    assert!(world.sealer.open(&binding, &sealed.sealed_private_key).is_ok(), "sealed anew for its custom CSR");
}

#[tokio::test]
async fn a_pool_key_that_does_not_open_is_deleted_and_uses_up_no_attempt() {
    let world = World { key_pool_size: 1, ..World::new().await };
    let spoilt = NewPoolKey {
        id: "spoilt".into(),
        spki_sha256: [1; 32],
        master_key_id: world.sealer.current_id(),
        sealed_private_key: vec![1; 100],
    };
    assert_eq!(world.store().add_pool_key(&spoilt, 1, now()).await.unwrap(), PoolAddition::Added);
    let limits = Limits { retry_delays: Vec::new(), ..Limits::default() };
    let workers = world.workers(AwsLc, limits);
    // With one attempt allowed, a counted one would have ended it as failed.
    assert_eq!(world.ended(world.accept(KeyType::Rsa2048).await).await.status, Status::Active);
    workers.drain(Duration::from_secs(10)).await;
    assert_eq!(world.test.number("SELECT COUNT(*) FROM pool_keys WHERE id = 'spoilt'").await, 0);
}

#[tokio::test]
async fn a_job_that_comes_while_keys_are_made_ahead_finds_its_threads_free() {
    let world = World { key_pool_size: 1, ..World::new().await };
    let (begun_sender, begun) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let workers = world.workers(
        scripted(move |call| {
            if call == 0 {
                let _ = begun_sender.send(());
                let _ = held.lock().unwrap().recv();
            }
            None
        }),
        Limits::default(),
    );
    // The first call is that of the pool, and it takes its time.
    while begun.try_recv().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ids = [world.accept(KeyType::Rsa2048).await, world.accept(KeyType::Rsa2048).await, world.accept(KeyType::P256v1).await];
    for id in ids {
        assert_eq!(world.ended(id).await.status, Status::Active);
    }
    assert_eq!(world.store().count_pool_keys().await.unwrap(), 0, "the pool still waits for its key");
    drop(release);
    until_the_pool_has(&**world.store(), 1).await;
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn no_key_of_the_pool_lies_readable_in_the_database() {
    let world = World { key_pool_size: 2, ..World::new().await };
    let keys = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
    let workers = world.workers(Remembering(Arc::clone(&keys)), Limits::default());
    until_the_pool_has(&**world.store(), 2).await;
    workers.drain(Duration::from_secs(10)).await;
    let mut stored = Vec::new();
    if world.test.is_postgres() {
        while let Some(key) = world.store().lease_pool_key(&world.sealer.current_id(), Duration::from_secs(1)).await.unwrap() {
            stored.extend(key.sealed_private_key);
        }
        assert!(stored.len() > 2_000);
    }
    for file in std::fs::read_dir(world.test.directory.path()).unwrap() {
        stored.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    for key in keys.lock().unwrap().iter() {
        let secret = &key[key.len() - 64..];
        assert!(!stored.windows(secret.len()).any(|window| window == secret));
    }
}
