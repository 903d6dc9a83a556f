//! What the handlers share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{bodies::create::Validator, clock::Clock, outbound::Gate, seal::Sealer, storage::Store, x509::trust_anchors::TrustAnchors};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::{
    auth::authenticator::Authenticator,
    handovers::settings::Settings as HandoverSettings,
    health::Health,
    http::{client::TrustedProxies, cors::Origins, rate_limit::RateLimits},
};

/// Requests that may wait at the same time; more are answered without waiting.
pub const MAX_WAITING: usize = 1_000;

/// Places for requests that wait: a number in all, and an eighth of it for each token subject.
pub struct Waiting {
    places: Semaphore,
    each: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// A place of a request that waits.
pub struct Place<'a> {
    waiting: &'a Waiting,
    subject: String,
    _permit: SemaphorePermit<'a>,
}

impl Waiting {
    /// With this number of places in all.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: Semaphore::new(places), each: places.div_ceil(8), taken: Mutex::default() }
    }

    /// Takes a place, or returns `None` if this subject, or all subjects together, have no place left.
    #[must_use]
    pub fn try_take(&self, subject: &str) -> Option<Place<'_>> {
        let permit = self.places.try_acquire().ok()?;
        let mut taken = self.taken();
        let count = taken.entry(subject.to_owned()).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Place { waiting: self, subject: subject.to_owned(), _permit: permit })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.waiting.taken();
        if let Some(count) = taken.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.subject);
            }
        }
    }
}

/// What the handlers share.
pub struct AppState {
    /// The storage.
    pub store: Arc<dyn Store>,
    /// Checks the bodies of requests for a custom CSR.
    pub validator: Validator,
    /// The roots that uploaded certificates must lead to, or `None` if any will do.
    pub trust_anchors: Option<TrustAnchors>,
    /// Verifies tokens.
    pub authenticator: Arc<Authenticator>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether the process is ready.
    pub health: Arc<Health>,
    /// How many custom CSRs of one zone or account may be pending; beyond it a POST is refused.
    pub max_pending: u32,
    /// The seconds that a POST waits that does not say how long.
    pub create_wait_secs: u32,
    /// How long a deleted custom CSR can be restored; zero: not at all.
    pub delete_grace: Duration,
    /// Places for requests that wait.
    pub waiting: Waiting,
    /// Room for the bodies of requests, in bytes.
    pub body_bytes: Arc<Semaphore>,
    /// How often clients may ask.
    pub rate_limits: Arc<RateLimits>,
    /// The proxies that say for whom they ask.
    pub trusted_proxies: TrustedProxies,
    /// Settings of hand-over links.
    pub handovers: HandoverSettings,
    /// Where tenants ask for access and quotas.
    pub contact_url: Option<String>,
    /// The origins whose pages may ask from a browser.
    pub cors_origins: Origins,
    /// Where webhooks may lead.
    pub gate: Gate,
    /// Makes the first key pair for the secrets of webhooks, or `None` in a process that has no master key.
    pub sealer: Option<Arc<Sealer>>,
    /// Whether the process is about to end: then no request waits any longer.
    pub stopping: watch::Receiver<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subject_has_an_eighth_of_the_places_and_all_have_no_more_than_there_are() {
        let waiting = Waiting::new(16);
        let mut places: Vec<_> = (0..2).map(|_| waiting.try_take("one").unwrap()).collect();
        assert!(waiting.try_take("one").is_none());
        places.extend((0..14).map(|number| waiting.try_take(&format!("other {number}")).unwrap()));
        assert!(waiting.try_take("late").is_none());
        places.remove(0);
        assert!(waiting.try_take("one").is_some());
        drop(places);
        assert!(waiting.taken().is_empty());
    }
}
