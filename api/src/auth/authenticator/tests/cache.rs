//! Attacks on what is remembered of accepted tokens.

use std::sync::atomic::{AtomicI64, Ordering};

use super::{
    super::super::cache::{TOKENS_MAX, TokenHash},
    *,
};

const OTHER_SECRET: &[u8] = b"fedcba9876543210fedcba9876543210";

/// A clock that stands until it is set.
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst) * 1_000_000)
    }
}

struct World {
    clock: Arc<SetClock>,
    authenticator: Authenticator,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(SetClock(NOW_SECS.into()));
        Self { authenticator: Authenticator::new(&demo(), clock.clone()).unwrap(), clock }
    }

    fn judge(&self, token: &str) -> Result<Arc<Caller>, u16> {
        self.authenticator.judge(&[format!("Bearer {token}").as_bytes()]).map_err(|refusal| refusal.code.number())
    }

    fn verdict(&self, token: &str) -> Result<(), u16> {
        self.judge(token).map(drop)
    }

    fn verdict_at(&self, secs: i64, token: &str) -> Result<(), u16> {
        self.clock.0.store(secs, Ordering::SeqCst);
        self.verdict(token)
    }

    fn remembered(&self) -> usize {
        self.authenticator.keys().verified.len()
    }
}

fn source(secret: &[u8]) -> KeySource {
    KeySource::Demo(Secret(secret.to_vec().into()))
}

fn signed_by(secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret)).unwrap()
}

#[test]
fn an_accepted_token_is_verified_once_and_then_remembered() {
    let (world, token) = (World::new(), hs256(&claims()));
    let first = world.judge(&token).unwrap();
    assert!(Arc::ptr_eq(&first, &world.judge(&token).unwrap()), "the second is the first one's");
    assert_eq!(world.remembered(), 1);
}

#[test]
fn a_remembered_token_ends_at_its_exp_and_its_leeway_to_the_second() {
    let (world, token) = (World::new(), hs256(&claims()));
    let end = NOW_SECS + 10 + 60;
    assert_eq!(world.verdict(&token), Ok(()));
    assert_eq!(world.verdict_at(end - 1, &token), Ok(()));
    assert_eq!(world.verdict_at(end, &token), Err(1003));
    assert_eq!(world.remembered(), 0, "what is over is forgotten");
    assert_eq!(world.verdict(&token), Err(1003));
    assert_eq!(world.remembered(), 0);
}

#[test]
fn a_remembered_token_is_refused_where_the_clock_goes_back_before_its_nbf() {
    let (world, token) = (World::new(), hs256(&with("nbf", json!(NOW_SECS - 100))));
    assert_eq!(world.verdict(&token), Ok(()));
    assert_eq!(world.verdict_at(NOW_SECS - 161, &token), Err(1003));
    assert_eq!(world.verdict_at(NOW_SECS - 160, &token), Ok(()));
}

#[test]
fn refused_tokens_are_never_remembered() {
    let world = World::new();
    let good = hs256(&claims());
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    let early = hs256(&with("nbf", json!(NOW_SECS + 100)));
    let expired = hs256(&with("exp", json!(1)));
    for (bad, code) in [(&forged, 1003), (&early, 1003), (&expired, 1003), (&signed_payload(b"{}"), 1005), (&"a.b".to_owned(), 1001)] {
        assert_eq!(world.verdict(bad), Err(code));
        assert_eq!(world.verdict(bad), Err(code));
    }
    assert_eq!(world.remembered(), 0);
    assert_eq!(world.verdict(&good), Ok(()));
    assert_eq!(world.verdict(&forged), Err(1003), "beside the one that it was forged from");
    assert_eq!(world.verdict_at(NOW_SECS + 40, &early), Ok(()), "its time has come");
}

#[test]
fn each_token_names_its_own_caller() {
    let world = World::new();
    let tokens = ["a", "b"].map(|subject| hs256(&with("sub", json!(subject))));
    for _ in 0..2 {
        for (token, subject) in tokens.iter().zip(["a", "b"]) {
            assert_eq!(world.judge(token).unwrap().subject(), subject);
        }
    }
    assert_eq!(world.remembered(), 2);
}

#[test]
fn nothing_that_the_former_keys_accepted_outlives_them() {
    let world = World::new();
    let (old, new) = (hs256(&claims()), signed_by(OTHER_SECRET, &claims()));
    assert_eq!((world.verdict(&old), world.verdict(&new)), (Ok(()), Err(1003)));
    world.authenticator.reload_if_changed(&source(OTHER_SECRET)).unwrap();
    assert_eq!((world.verdict(&old), world.verdict(&new)), (Err(1003), Ok(())));
    assert!(world.authenticator.reload_if_changed(&KeySource::SecretFile("/no/such/file".into())).is_err());
    assert_eq!((world.verdict(&old), world.verdict(&new)), (Err(1003), Ok(())), "a failed reload changes nothing");
}

#[test]
fn keys_that_change_while_a_token_is_verified_do_not_keep_it() {
    let (world, old) = (World::new(), hs256(&claims()));
    // A request that found the former keys, verifies by them and remembers what it found after the change.
    let former = world.authenticator.keys();
    world.authenticator.reload_if_changed(&source(OTHER_SECRET)).unwrap();
    assert!(world.authenticator.check(&former, &old).is_ok(), "it is judged by the keys that it found first");
    assert_eq!(former.verified.len(), 1);
    assert_eq!(world.verdict(&old), Err(1003));
    assert_eq!(world.remembered(), 0);
}

#[test]
fn keys_that_change_under_many_requests_leave_only_what_they_verified() {
    let (world, old, new) = (World::new(), hs256(&claims()), signed_by(OTHER_SECRET, &claims()));
    std::thread::scope(|threads| {
        for token in [&old, &new] {
            threads.spawn(|| (0..2_000).for_each(|_| drop(world.judge(token))));
        }
        for round in 0..500 {
            let (keys, good, bad) = if round % 2 == 0 { (OTHER_SECRET, &new, &old) } else { (SECRET, &old, &new) };
            world.authenticator.reload_if_changed(&source(keys)).unwrap();
            assert_eq!((world.verdict(good), world.verdict(bad)), (Ok(()), Err(1003)), "round {round}");
        }
    });
}

#[test]
fn tokens_are_remembered_up_to_a_bound_and_those_in_use_stay() {
    let (world, used) = (World::new(), hs256(&claims()));
    let caller = world.judge(&used).unwrap();
    let keys = world.authenticator.keys();
    for number in 0..3 * TOKENS_MAX {
        let other = keys.verified.find(&TokenHash::of(&used).unwrap()).unwrap();
        keys.verified.insert(TokenHash::of(&number.to_string()).unwrap(), other);
        assert!(keys.verified.len() <= TOKENS_MAX, "{number}");
    }
    assert!(keys.verified.len() >= TOKENS_MAX / 2);
    assert!(keys.verified.find(&TokenHash::of("0").unwrap()).is_none(), "an unused one made room");
    assert!(Arc::ptr_eq(&caller, &world.judge(&used).unwrap()));
}

#[test]
fn a_token_that_is_too_long_to_be_remembered_is_judged_every_time() {
    let (world, long) = (World::new(), hs256(&with("padding", json!("x".repeat(4_000)))));
    assert_eq!((world.verdict(&long), world.verdict(&long)), (Ok(()), Ok(())));
    assert_eq!(world.remembered(), 0);
    assert_eq!(world.verdict_at(NOW_SECS + 70, &long), Err(1003));
}
