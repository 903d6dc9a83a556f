//! How often clients may ask, and how often they may fail to say who they are.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    mem,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::StateStore,
};
use shared::{codes::ErrorCode, issue::Issue};

use super::client::Client;

/// Failures that an address may have at once: whoever misspells a token in a script is not locked out by the first try.
const FAILURES_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(49);
/// How many keys each half of a limit's memory holds: about 2 MiB.
const KEYS_MAX: usize = 65_536;

/// The bounds on the requests of one client.
#[derive(Default)]
pub struct RateLimits {
    requests: Option<RateLimit>,
    failures: Option<RateLimit>,
}

impl RateLimits {
    /// So many requests a second for one token subject, twice that at once, and so many failed authentications a second for one address, at
    /// least 50 at once. 0 is no bound.
    #[must_use]
    pub fn new(requests: u32, failures: u32) -> Self {
        Self {
            requests: NonZeroU32::new(requests).map(|rate| RateLimit::new(rate, rate.saturating_add(rate.get()))),
            failures: NonZeroU32::new(failures).map(|rate| RateLimit::new(rate, rate.max(FAILURES_AT_ONCE))),
        }
    }

    /// Counts a request of a subject.
    ///
    /// # Errors
    ///
    /// 1470 if it is one too many.
    pub fn count_request(&self, subject: &str) -> Result<(), Issue> {
        let is_free = self.requests.as_ref().is_none_or(|limit| limit.take(subject));
        if is_free { Ok(()) } else { Err(too_many_requests()) }
    }

    /// Checks that an address has not failed too often.
    ///
    /// # Errors
    ///
    /// 1470 if it has.
    pub fn check_failures(&self, client: Client) -> Result<(), Issue> {
        let is_free = self.failures.as_ref().is_none_or(|limit| limit.is_free(&network(client)));
        let hint = "Too many requests from this address had a token or a link that is not accepted.";
        if is_free { Ok(()) } else { Err(Issue::new(ErrorCode::TooManyRequests).hinting(hint)) }
    }

    /// Counts a failure of an address that tried an unknown hand-over link.
    pub fn count_unknown_link(&self, client: Client) {
        if let Some(limit) = &self.failures {
            limit.take(&network(client));
        }
    }

    /// Counts a failure of an address, if the code says that a token was sent and is not accepted.
    pub fn count_failure(&self, client: Client, code: ErrorCode) {
        if let (Some(limit), 401) = (&self.failures, code.status()) {
            limit.take(&network(client));
        }
    }
}

/// 1470 for a subject that sends too many requests.
#[must_use]
pub fn too_many_requests() -> Issue {
    Issue::new(ErrorCode::TooManyRequests).hinting("The subject of this token sends more requests a second than it may.")
}

/// Whose failures count together: an address, or the first 64 bits of one in IPv6, below which a client has all addresses.
fn network(Client(address): Client) -> Option<IpAddr> {
    Some(match address? {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    })
}

type Limiter<C> = RateLimiter<u64, Keeping<C>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A limit for each key apart from the others.
struct RateLimit<C: Clock = MonotonicClock> {
    taking: Limiter<C>,
    looking: Limiter<C>,
    /// Keys are kept as hashes, which nobody outside can foresee: they are all of one size.
    hasher: RandomState,
}

impl RateLimit {
    fn new(rate: NonZeroU32, at_once: NonZeroU32) -> Self {
        Self::with_clock(rate, at_once, &MonotonicClock)
    }
}

impl<C: Clock + Clone> RateLimit<C> {
    fn with_clock(rate: NonZeroU32, at_once: NonZeroU32, clock: &C) -> Self {
        let quota = Quota::per_second(rate).allow_burst(at_once);
        let memory = Arc::new(Memory::new(clock.clone(), quota.burst_size_replenished_in()));
        let limiter = |keeps| RateLimiter::new(quota, Keeping { memory: Arc::clone(&memory), keeps }, clock.clone());
        Self { taking: limiter(true), looking: limiter(false), hasher: RandomState::new() }
    }

    /// Takes one for a key, or returns false if there is none left.
    fn take(&self, key: &(impl Hash + ?Sized)) -> bool {
        self.taking.check_key(&self.hasher.hash_one(key)).is_ok()
    }

    /// Whether there is one left for a key.
    fn is_free(&self, key: &(impl Hash + ?Sized)) -> bool {
        self.looking.check_key(&self.hasher.hash_one(key)).is_ok()
    }
}

/// What was taken, in two halves: a key in neither of them has taken nothing. After the time in which everything comes back, or when the
/// younger half is full, the older one is forgotten, so that millions of keys need no more memory than [`KEYS_MAX`].
struct Memory<C: Clock> {
    halves: Mutex<Halves<C::Instant>>,
    clock: C,
    /// In which everything that a key has taken comes back.
    life: Nanos,
}

struct Halves<I> {
    younger: HashMap<u64, Nanos>,
    older: HashMap<u64, Nanos>,
    /// Since when there is this younger half.
    since: I,
}

impl<C: Clock> Memory<C> {
    fn new(clock: C, life: Duration) -> Self {
        let halves = Halves { younger: HashMap::new(), older: HashMap::new(), since: clock.now() };
        Self { halves: Mutex::new(halves), clock, life: life.into() }
    }

    fn measure<T, E>(&self, key: u64, keeps: bool, judge: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>) -> Result<T, E> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if now.duration_since(halves.since) >= self.life || halves.younger.len() >= KEYS_MAX {
            halves.older = mem::take(&mut halves.younger);
            halves.since = now;
        }
        let known = halves.younger.get(&key).or_else(|| halves.older.get(&key)).copied();
        let (outcome, next) = judge(known)?;
        if keeps {
            halves.younger.insert(key, next);
        }
        Ok(outcome)
    }
}

/// Keeps what is taken, or looks whether there is something to take and leaves it.
struct Keeping<C: Clock> {
    memory: Arc<Memory<C>>,
    keeps: bool,
}

impl<C: Clock> StateStore for Keeping<C> {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.memory.measure(*key, self.keeps, judge)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limit(rate: u32, at_once: u32) -> (RateLimit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (RateLimit::with_clock(NonZeroU32::new(rate).unwrap(), NonZeroU32::new(at_once).unwrap(), &clock), clock)
    }

    #[test]
    fn a_key_takes_its_burst_then_its_rate_and_leaves_the_others_theirs() {
        let (limit, clock) = limit(10, 50);
        assert_eq!((0..60).filter(|_| limit.take("one")).count(), 50);
        assert!(!limit.is_free("one") && limit.is_free("two"));
        clock.advance(Duration::from_secs(1));
        assert!(limit.is_free("one"));
        assert_eq!((0..60).filter(|_| limit.take("one")).count(), 10);
        clock.advance(Duration::from_mins(1));
        assert_eq!((0..60).filter(|_| limit.take("one")).count(), 50, "no more than the burst is saved");
    }

    #[test]
    fn who_looks_takes_nothing() {
        let (limit, _) = limit(1, 1);
        assert!((0..100).all(|_| limit.is_free("one")));
        assert!(limit.take("one") && !limit.take("one") && !limit.is_free("one"));
    }

    #[test]
    fn what_was_taken_is_not_forgotten_before_it_came_back() {
        let (limit, clock) = limit(1, 10);
        assert_eq!((0..60).filter(|_| limit.take("one")).count(), 10);
        let mut taken = 0;
        for _ in 0..300 {
            clock.advance(Duration::from_millis(100));
            limit.take("another");
            taken += u32::from(limit.take("one"));
        }
        assert_eq!(taken, 30, "one a second");
    }

    #[test]
    fn a_million_keys_need_no_more_memory_than_the_bound_and_are_forgotten_in_time() {
        let clock = FakeRelativeClock::default();
        let life = Duration::from_secs(2);
        let memory = Memory::new(clock.clone(), life);
        let keep = |key, keeps| memory.measure(key, keeps, |_| Ok::<_, ()>(((), life.into()))).unwrap();
        let kept = || {
            let halves = memory.halves.lock().unwrap();
            halves.younger.len() + halves.older.len()
        };
        for key in 0..1_000_000 {
            keep(key, true);
        }
        assert!((KEYS_MAX..=2 * KEYS_MAX).contains(&kept()));
        for _ in 0..2 {
            clock.advance(life);
            keep(0, false);
        }
        assert_eq!(kept(), 0);
    }

    #[test]
    fn zero_is_no_bound() {
        let (client, none) = (Client(Some("192.0.2.1".parse().unwrap())), RateLimits::new(0, 0));
        assert!((0..1_000).all(|_| none.count_request("me").is_ok()));
        (0..1_000).for_each(|_| none.count_failure(client, ErrorCode::TokenUnverified));
        assert!(none.check_failures(client).is_ok());
    }

    #[test]
    fn a_subject_has_twice_its_rate_at_once() {
        let limits = RateLimits::new(1_000, 0);
        let refused = (0..1_000_000).find(|_| limits.count_request("me").is_err());
        assert!(refused >= Some(2_000), "{refused:?}");
        assert!(limits.count_request("you").is_ok());
    }

    #[test]
    fn an_address_has_fifty_failures_at_once_and_a_request_without_a_token_is_none() {
        let client = |text: &str| Client(Some(text.parse().unwrap()));
        let (one, other, limits) = (client("192.0.2.1"), client("192.0.2.2"), RateLimits::new(0, 10));
        (0..1_000).for_each(|_| limits.count_failure(one, ErrorCode::AuthorizationMissing));
        let refused = (0..1_000_000).find(|_| {
            limits.count_failure(one, ErrorCode::BearerMissing);
            limits.check_failures(one).is_err()
        });
        assert!(refused >= Some(49), "{refused:?}");
        assert!(limits.check_failures(other).is_ok());
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_are_one_client_and_those_of_ipv4_are_not() {
        let network = |text: &str| network(Client(Some(text.parse().unwrap())));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
