//! Keys that fail a check: none is used, and none costs the row anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use shared::custom_csr::{KeyType, Status};
use worker::{
    Limits, Workers,
    keys::{KeyGenerator, KeygenError, aws_lc::AwsLc, private_key::PrivateKey, quality::Check},
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
