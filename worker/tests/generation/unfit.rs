//! Keys that fail a check: none is used, and none costs the row anything.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use shared::{
    custom_csr::{KeyType, Status},
    seal::Binding,
    storage::{NewPoolKey, PoolAddition},
    testing::now,
};
use tokio::time::Instant;
use worker::{
    Limits, Workers,
    keys::{KeyGenerator, KeygenError, aws_lc::AwsLc, blocked::BlockedKeys, private_key::PrivateKey, quality::Check},
};

use crate::support::World;

const KEYS: &str = include_str!("../../src/keys/quality/bad_keys.txt");

/// Gives these known keys first, and then good ones.
struct First {
    names: Vec<&'static str>,
    calls: Arc<AtomicUsize>,
}

impl KeyGenerator for First {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        match self.names.get(self.calls.fetch_add(1, Ordering::SeqCst)) {
            Some(name) => {
                let line = KEYS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).ok_or(KeygenError)?;
                PrivateKey::parse(key_type, &STANDARD.decode(line).map_err(|_| KeygenError)?).map_err(|_| KeygenError)
            }
            None => AwsLc.generate(key_type),
        }
    }
}

fn failed(workers: &Workers) -> Vec<(Check, u64)> {
    workers.failed_checks().counts().filter(|(_, count)| *count > 0).collect()
}

/// One attempt: whatever counted would end the row as failed.
fn strict() -> Limits {
    Limits { retry_delays: Vec::new(), ..Limits::default() }
}

#[tokio::test]
async fn keys_that_fail_a_check_are_made_anew_at_once_and_counted_by_the_name_of_the_check() {
    let world = World::new().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let names = vec!["roca", "fermat", "public_exponent", "close_primes"];
    let workers = world.workers(First { names, calls: Arc::clone(&calls) }, strict());
    let csr = world.ended(world.accept(KeyType::Rsa2048).await).await;
    assert_eq!((csr.status, csr.error), (Status::Active, None));
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    let expected = [Check::PublicExponent, Check::Fermat, Check::ClosePrimes, Check::Roca].map(|check| (check, 1));
    assert_eq!(failed(&workers), expected);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_generator_that_makes_nothing_but_unfit_keys_ends_the_row_with_the_name_of_the_check() {
    let world = World::new().await;
    let workers = world.workers(First { names: vec!["roca"; 5], calls: Arc::default() }, strict());
    let csr = world.ended(world.accept(KeyType::Rsa2048).await).await;
    assert_eq!(csr.error.unwrap(), "Generation failed 1 times, the last time because a new key failed the check roca.");
    assert_eq!(failed(&workers), [(Check::Roca, 5)]);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn no_unfit_key_comes_into_the_key_pool() {
    let world = World { key_pool_size: 1, ..World::new().await };
    let calls = Arc::new(AtomicUsize::new(0));
    let workers = world.workers(First { names: vec!["fermat", "roca"], calls: Arc::clone(&calls) }, strict());
    let csr = world.ended(world.accept(KeyType::Rsa2048).await).await;
    assert_eq!(csr.status, Status::Active);
    assert_eq!(failed(&workers), [(Check::Fermat, 1), (Check::Roca, 1)]);
    workers.drain(Duration::from_secs(10)).await;
}

/// Gives copies of one key so many times, and then others.
struct Repeating {
    times: usize,
    calls: Arc<AtomicUsize>,
    key: Vec<u8>,
}

fn repeating(times: usize) -> (Repeating, BlockedKeys) {
    let key = AwsLc.generate(KeyType::Rsa2048).unwrap();
    let digits = shared::printable::hex(&key.spki_sha256());
    let key = key.to_private_key_info().unwrap().to_vec();
    (Repeating { times, calls: Arc::default(), key }, BlockedKeys::parse(digits.as_bytes()).unwrap())
}

impl KeyGenerator for Repeating {
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError> {
        if self.calls.fetch_add(1, Ordering::SeqCst) < self.times {
            return PrivateKey::parse(key_type, &self.key).map_err(|_| KeygenError);
        }
        AwsLc.generate(key_type)
    }
}

#[tokio::test]
async fn of_a_generator_that_repeats_a_key_only_the_first_is_used() {
    let world = World::new().await;
    let workers = world.workers(repeating(4).0, strict());
    let mut requests = HashSet::new();
    for _ in 0..2 {
        let csr = world.ended(world.accept(KeyType::Rsa2048).await).await;
        assert_eq!((csr.status, csr.error), (Status::Active, None));
        let csr = csr.csr_pem.unwrap();
        // The subjects are equal: two requests with the same RSA key would be too.
        assert!(requests.insert(csr));
    }
    assert_eq!(failed(&workers), [(Check::InUse, 3)]);
    assert!(workers.trouble().borrow().is_none(), "the database is as it should be");
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_fresh_key_that_lies_in_the_key_pool_is_not_used() {
    let world = World::new().await;
    let (generator, _) = repeating(1);
    let key = PrivateKey::parse(KeyType::Rsa2048, &generator.key).unwrap();
    let pooled = NewPoolKey {
        id: "pooled".into(),
        spki_sha256: key.spki_sha256(),
        master_key_id: world.sealer.current_id(),
        sealed_private_key: vec![1; 100],
    };
    assert_eq!(world.store().add_pool_key(&pooled, 1, now()).await.unwrap(), PoolAddition::Added);
    let workers = world.workers(generator, strict());
    assert_eq!(world.ended(world.accept(KeyType::Rsa2048).await).await.status, Status::Active);
    assert_eq!(failed(&workers), [(Check::InUse, 1)]);
    workers.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_blocked_key_is_used_neither_fresh_nor_out_of_the_key_pool() {
    let (generator, blocked_keys) = repeating(2);
    let world = World { key_pool_size: 1, ..World::new().await };
    // The key pool had it before it was blocked.
    let key = PrivateKey::parse(KeyType::Rsa2048, &generator.key).unwrap();
    let (id, spki_sha256) = ("pooled".to_owned(), key.spki_sha256());
    let sealed_private_key = world.sealer.seal(&Binding::pool_key(&id, &spki_sha256), &generator.key).unwrap();
    let pooled = NewPoolKey { id, spki_sha256, master_key_id: world.sealer.current_id(), sealed_private_key };
    assert_eq!(world.store().add_pool_key(&pooled, 1, now()).await.unwrap(), PoolAddition::Added);
    let world = World { blocked_keys, ..world };
    let workers = world.workers(generator, strict());
    let csr = world.ended(world.accept(KeyType::Rsa2048).await).await;
    assert_eq!((csr.status, csr.error), (Status::Active, None));
    // One out of the key pool and two fresh ones, for the custom CSR or for the key pool.
    let end = Instant::now() + Duration::from_mins(1);
    while failed(&workers) != [(Check::Blocked, 3)] {
        assert!(Instant::now() < end, "{:?}", failed(&workers));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    workers.drain(Duration::from_secs(10)).await;
}
