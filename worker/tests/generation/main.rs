//! Generation from the accepted row to `active` or `failed`, on a real database with real workers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod faults;
mod incidents;
mod key_pool;
mod support;
mod unfit;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use shared::{
    custom_csr::{KeyType, Status},
    seal::{Binding, MasterKey},
    storage::Deletion,
    testing::{actor, now},
};
use support::{Given, Remembering, World, scripted};
use tokio::time::Instant;
use worker::{
    Limits, Schedule,
    keys::{KeyGenerator, KeygenError, aws_lc::AwsLc, private_key::PrivateKey},
};

/// Limits under which giving up does not take long.
fn hasty() -> Limits {
    Limits { retry_delays: vec![Duration::ZERO, Duration::ZERO], generation_time: Duration::from_millis(300), ..Limits::default() }
}

#[tokio::test]
async fn custom_csrs_of_both_key_types_become_active_each_with_a_key_of_its_own_that_opens_only_there() {
    let world = World::new().await;
    let workers = world.workers(AwsLc, Limits::default());
    let mut requests = HashSet::new();
    for key_type in [KeyType::Rsa2048, KeyType::P256v1, KeyType::P256v1] {
        let csr = world.ended(world.accept(key_type).await).await;
        assert_eq!((csr.status, csr.error), (Status::Active, None));
        assert!(requests.insert(csr.csr_pem.unwrap()));
    }
    let sealed = world.store().list_sealed(None, 1).await.unwrap().remove(0);
    let (id, scope) = (sealed.id.to_string(), sealed.scope.to_string());
    let binding = Binding::custom_csr(&id, &scope, &sealed.spki_sha256);
    let opened = world.sealer.open(&binding, &sealed.sealed_private_key).unwrap();
    let again = PrivateKey::parse(KeyType::Rsa2048, &opened).unwrap();
    assert_eq!(again.spki_sha256(), sealed.spki_sha256);
    assert!(world.sealer.open(&Binding { scope: "zones/other", ..binding }, &sealed.sealed_private_key).is_err());
    assert!(workers.drain(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_generation_that_errs_or_panics_twice_succeeds_at_the_third_attempt() {
    let world = World::new().await;
    let workers = world.workers(
        scripted(|call| match call {
            0 => Some(KeygenError),
            1 => panic!("as planned"),
            _ => None,
        }),
        hasty(),
    );
    assert_eq!(world.ended(world.accept(KeyType::P256v1).await).await.status, Status::Active);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn after_three_failed_attempts_a_custom_csr_is_failed_with_a_plain_reason_and_the_next_one_is_made() {
    let world = World::new().await;
    let workers = world.workers(scripted(|call| (call < 3).then_some(KeygenError)), hasty());
    let csr = world.ended(world.accept(KeyType::P256v1).await).await;
    assert_eq!(csr.status, Status::Failed);
    assert_eq!(csr.error.unwrap(), "Generation failed 3 times, the last time because the key pair could not be generated.");
    assert_eq!(world.ended(world.accept(KeyType::P256v1).await).await.status, Status::Active);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_generation_that_hangs_fails_in_time_and_stops_nobody_else() {
    let world = World::new().await;
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let workers = world.workers(
        scripted(move |call| {
            if call < 3 {
                let _ = held.lock().unwrap().recv();
            }
            None
        }),
        hasty(),
    );
    let csr = world.ended(world.accept(KeyType::P256v1).await).await;
    assert_eq!(csr.error.unwrap(), "Generation failed 3 times, the last time because the key generation did not end in time.");
    assert_eq!(world.ended(world.accept(KeyType::P256v1).await).await.status, Status::Active);
    drop(release);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_database_that_is_away_when_the_key_is_made_uses_up_no_attempt() {
    let world = World::new().await;
    let (started, begun) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let limits = Limits { retry_delays: Vec::new(), database_patience: Duration::from_millis(100), ..Limits::default() };
    let schedule = Schedule { sweep_interval: Duration::from_millis(200), ..Schedule::default() };
    let workers = world.workers_with(
        scripted(move |call| {
            if call == 0 {
                let _ = started.send(());
                let _ = held.lock().unwrap().recv();
            }
            None
        }),
        limits,
        schedule,
    );
    let id = world.accept(KeyType::P256v1).await;
    while begun.try_recv().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let locked = world.test.lock_writers().await;
    drop(release);
    // Longer than a statement waits, and than the worker has patience: the result is given up.
    let first = world.store().fail_generation(id, "not now", now()).await;
    assert!(first.is_err(), "writers are kept out");
    drop(locked);
    // With one attempt allowed, a counted one would have ended it as failed.
    assert_eq!(world.ended(id).await.status, Status::Active);
    workers.drain(Duration::from_secs(10)).await;
}

/// Whether the first of eight RSA keys was written when the sixth was begun, or later. The keys were made before, so that each is quick.
async fn results_waited_for_each_other(keys: Vec<PrivateKey>) -> bool {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in &keys {
        ids.push(world.accept(KeyType::Rsa2048).await);
    }
    let given = Given { keys: Mutex::new(keys), at: Arc::default() };
    let begun = Arc::clone(&given.at);
    let workers = world.workers(given, Limits::default());
    let mut written = Vec::new();
    for id in ids {
        let csr = world.ended(id).await;
        assert_eq!(csr.status, Status::Active);
        written.push(csr.updated_at);
    }
    workers.drain(Duration::from_secs(10)).await;
    let begun = begun.lock().unwrap();
    written.iter().min() >= Some(&begun[5])
}

#[tokio::test]
async fn results_of_slow_keys_are_written_together_while_others_wait_for_a_thread() {
    let keys: Vec<_> = (0..8).map(|_| AwsLc.generate(KeyType::Rsa2048).unwrap().to_private_key_info().unwrap()).collect();
    // Where the machine stands still for a moment, the first result does not wait long enough.
    for _ in 0..20 {
        let parsed = keys.iter().map(|key| PrivateKey::parse(KeyType::Rsa2048, key).unwrap()).collect();
        if results_waited_for_each_other(parsed).await {
            return;
        }
    }
    panic!("no result waited for another one");
}

#[tokio::test]
async fn a_row_that_was_started_fifty_times_without_a_result_is_failed() {
    let world = World::new().await;
    let id = world.accept(KeyType::P256v1).await;
    for _ in 0..50 {
        assert_eq!(world.store().start_generations(id, |_| 1).await.unwrap().len(), 1);
    }
    let workers = world.workers(AwsLc, Limits::default());
    let csr = world.ended(id).await;
    assert_eq!(csr.error.unwrap(), "Generation was started 50 times and never came to a result.");
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_row_beyond_its_attempts_whose_job_is_gone_is_failed_and_not_made() {
    let world = World::new().await;
    let id = world.accept(KeyType::P256v1).await;
    world.test.execute("UPDATE custom_csrs SET attempts = 3").await;
    world.test.execute("DELETE FROM {jobs}").await;
    let workers = world.workers(AwsLc, Limits::default());
    assert_eq!(world.ended(id).await.error.unwrap(), "Generation failed 3 times.");
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn what_was_accepted_before_the_workers_started_or_lost_its_job_becomes_active() {
    let world = World::new().await;
    let (queued, lost) = (world.accept(KeyType::P256v1).await, world.accept(KeyType::P256v1).await);
    world.test.execute(&format!("DELETE FROM {{jobs}} WHERE id = (SELECT job_id FROM custom_csrs WHERE id = '{lost}')")).await;
    let workers = world.workers(AwsLc, Limits::default());
    assert_eq!(world.ended(queued).await.status, Status::Active);
    assert_eq!(world.ended(lost).await.status, Status::Active);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_job_for_a_deleted_custom_csr_and_one_that_comes_twice_do_no_harm() {
    let world = World::new().await;
    let (deleted, twice) = (world.accept(KeyType::P256v1).await, world.accept(KeyType::P256v1).await);
    // Without its job, as where a worker has it at that moment.
    world.test.execute(&format!("DELETE FROM custom_csrs WHERE id = '{deleted}'")).await;
    world
        .test
        .execute(&format!(
            "INSERT INTO {{jobs}} (job, id, job_type, status, attempts, max_attempts, run_at, priority, metadata) \
             SELECT job, '01ARZ3NDEKTSV4RRFFQ69G5FAV', job_type, status, attempts, max_attempts, run_at, priority, metadata FROM {{jobs}} \
             WHERE id = (SELECT job_id FROM custom_csrs WHERE id = '{twice}')"
        ))
        .await;
    let workers = world.workers(AwsLc, Limits::default());
    let csr = world.ended(twice).await;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let done = world.test.number("SELECT COUNT(*) FROM {jobs} WHERE status = 'Done'").await;
        if done == 3 {
            break;
        }
        assert!(Instant::now() < end, "{done} jobs of 3 are done");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.ended(twice).await, csr, "the second run changed nothing");
    assert_eq!(world.store().find_custom_csr(&world.scope, deleted).await.unwrap(), None);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_delete_that_races_with_generation_leaves_no_row_no_key_and_no_live_job() {
    let world = World::new().await;
    let workers = world.workers(AwsLc, Limits::default());
    for round in 0..500 {
        let id = world.accept(KeyType::P256v1).await;
        // At another point of the generation each time.
        tokio::time::sleep(Duration::from_micros(round % 50 * 100)).await;
        assert_eq!(world.store().delete_custom_csr(&world.scope, id, &actor(), now()).await.unwrap(), Deletion::Deleted);
        assert_eq!(world.store().find_custom_csr(&world.scope, id).await.unwrap(), None);
    }
    let live = "SELECT COUNT(*) FROM {jobs} WHERE status IN ('Pending', 'Queued', 'Running')";
    let end = Instant::now() + Duration::from_secs(30);
    while world.test.number(live).await > 0 {
        assert!(Instant::now() < end, "jobs without a row are still live");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.test.number("SELECT COUNT(*) FROM custom_csrs").await, 0, "none came back");
    assert_eq!(world.store().find_scope(&world.scope).await.unwrap().unwrap().used, 0);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_drained_worker_finishes_what_it_began_and_takes_nothing_more() {
    let world = World::new().await;
    let ids: Vec<_> = futures::future::join_all((0..20).map(|_| world.accept(KeyType::Rsa2048))).await;
    // All keys but the first wait for the drain: however quick they are, not all are made before it.
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let generator = scripted(move |call| {
        if call > 0 {
            let _ = held.lock().unwrap().recv();
        }
        None
    });
    let workers = world.workers(generator, Limits::default());
    let with_status = |status| {
        let (store, scope, ids) = (Arc::clone(world.store()), world.scope.clone(), ids.clone());
        async move {
            let mut count = 0;
            for id in ids {
                count += usize::from(store.find_custom_csr(&scope, id).await.unwrap().unwrap().status == status);
            }
            count
        }
    };
    // Which of them comes first is for the queue to say.
    while with_status(Status::Active).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (all_ended, ()) = tokio::join!(workers.drain(Duration::from_secs(30)), async { drop(release) });
    assert!(all_ended);
    let left = with_status(Status::Pending).await;
    assert!(left > 0 && left < 19, "the worker finishes what it began, and begins no more: {left} of 20 are left");
    // On PostgreSQL what was given back is found by others; here the same process is to find it at once.
    world.test.execute("UPDATE {jobs} SET status = 'Pending', lock_by = NULL WHERE status IN ('Queued', 'Running')").await;
    let workers = world.workers(AwsLc, Limits::default());
    for id in &ids {
        assert_eq!(world.ended(*id).await.status, Status::Active);
    }
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn no_private_key_lies_readable_in_the_database() {
    let world = World::new().await;
    let keys = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
    let workers = world.workers(Remembering(Arc::clone(&keys)), Limits::default());
    for key_type in [KeyType::Rsa2048, KeyType::P256v1] {
        world.ended(world.accept(key_type).await).await;
    }
    workers.drain(Duration::from_secs(10)).await;
    let mut stored = Vec::new();
    if world.test.is_postgres() {
        stored.extend(world.store().list_sealed(None, 1).await.unwrap().remove(0).sealed_private_key);
    }
    for file in std::fs::read_dir(world.test.directory.path()).unwrap() {
        stored.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let keys = keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 2);
    for key in keys {
        // The last bytes of both structures are secret (RSA: qInv; P-256 without its public key would be too short to be seen by chance).
        let secret = if key.len() > 500 { &key[key.len() - 64..] } else { &key[36..68] };
        assert!(!stored.windows(secret.len()).any(|window| window == secret));
        assert!(key.windows(secret.len()).any(|window| window == secret), "the search itself works");
    }
}

#[tokio::test]
async fn workers_without_the_current_master_key_seal_with_no_other_and_go_on_when_they_get_it() {
    let world = World { key_pool_size: 1, ..World::new().await };
    let (old, new) = (world.sealer.master_keys().remove(0), MasterKey::generate().unwrap());
    world.store().use_master_key(&new.id(), &actor(), now()).await.unwrap();
    world.sealer.replace(new.id(), vec![old.clone()]);
    let workers = world.workers(AwsLc, Limits { retry_delays: Vec::new(), ..Limits::default() });
    workers.alive().wait_for(|alive| *alive).await.unwrap();
    let ids = [world.accept(KeyType::P256v1).await, world.accept(KeyType::Rsa2048).await];
    // Longer than the workers take to look for jobs: nothing may come of it, however slow the machine is.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let untouched = "SELECT COUNT(*) FROM custom_csrs WHERE status = 'pending' AND attempts = 0 AND starts = 0";
    assert_eq!(world.test.number(untouched).await, 2);
    let jobs = world.test.number("SELECT COUNT(*) FROM {jobs}").await;
    assert!(jobs < 20, "jobs are not taken and given back all the time: {jobs} were made");
    world.sealer.replace(new.id(), vec![old, new.clone()]);
    for id in ids {
        assert_eq!(world.ended(id).await.status, Status::Active);
    }
    let sealed = world.store().list_sealed(None, 9).await.unwrap();
    assert!(sealed.len() == 2 && sealed.iter().all(|row| row.master_key_id == new.id()));
    workers.drain(Duration::from_secs(10)).await;
}
