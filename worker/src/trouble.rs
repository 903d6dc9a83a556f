//! Errors that keep rows pending: logged once, shown by the health check, and answered with a growing pause for each row.

use std::{
    collections::HashMap,
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::ids::CustomCsrId;
use tokio::{sync::watch, time::Instant};

/// The first pause of a row. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a row.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// An error that did not come again for so long is no longer shown: its rows may be gone.
const SHOWN_FOR: Duration = Duration::from_mins(2);
/// The most rows that are remembered. Beyond it, all begin with the first pause again.
const ROWS_MAX: usize = 10_000;

/// An error that keeps keys from being made or stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    text: String,
    since: Instant,
}

impl Trouble {
    /// The error's message, or `None` if the error is old.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        (self.since.elapsed() < SHOWN_FOR).then_some(self.text.as_str())
    }
}

/// Counts the errors of each row and remembers the last one.
pub struct Troubles {
    last: watch::Sender<Option<Trouble>>,
    errors: Mutex<HashMap<CustomCsrId, u32>>,
}

impl Default for Troubles {
    fn default() -> Self {
        Self { last: watch::Sender::new(None), errors: Mutex::default() }
    }
}

impl Troubles {
    /// The last error, until a key is stored again.
    #[must_use]
    pub fn last(&self) -> watch::Receiver<Option<Trouble>> {
        self.last.subscribe()
    }

    /// Remembers an error. It is logged as an error once for each text, not for each row.
    pub fn report(&self, id: CustomCsrId, error: &impl Display) {
        let text = error.to_string();
        self.last.send_modify(|last| {
            let is_new = last.as_ref().and_then(Trouble::current) != Some(text.as_str());
            if is_new {
                tracing::error!(custom_csr_id = %id, %error, "keys cannot be stored: custom CSRs stay pending until the cause is removed");
            } else {
                tracing::debug!(custom_csr_id = %id, %error, "a custom CSR stays pending");
            }
            *last = Some(Trouble { text, since: Instant::now() });
        });
    }

    /// Counts an error of this row and returns how long the row waits.
    pub fn pause(&self, id: CustomCsrId) -> Duration {
        let mut errors = self.errors();
        if errors.len() >= ROWS_MAX {
            errors.clear();
        }
        let count = errors.entry(id).or_default();
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow((*count).min(16))).min(LONGEST_PAUSE);
        *count += 1;
        pause
    }

    /// Forgets the errors of this row and the last error: a key was stored.
    pub fn clear(&self, id: CustomCsrId) {
        self.errors().remove(&id);
        self.last.send_if_modified(|last| {
            let had_one = last.take().is_some();
            if had_one {
                tracing::info!("keys can be stored again");
            }
            had_one
        });
    }

    fn errors(&self) -> MutexGuard<'_, HashMap<CustomCsrId, u32>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use shared::{storage::StoreError, testing::now};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_error_is_shown_until_a_key_is_stored_or_until_it_is_old() {
        let (troubles, id) = (Troubles::default(), CustomCsrId::new(now()));
        let last = troubles.last();
        let current = || last.borrow().as_ref().and_then(|trouble| trouble.current().map(str::to_owned));
        assert_eq!(current(), None);
        troubles.report(id, &StoreError::Internal("no right".into()));
        assert!(current().unwrap().contains("no right"));
        troubles.clear(id);
        assert_eq!(current(), None);
        troubles.report(id, &StoreError::Internal("no right".into()));
        tokio::time::advance(SHOWN_FOR).await;
        assert_eq!(current(), None);
    }

    #[test]
    fn the_pause_of_a_row_grows_to_a_minute_and_is_its_own() {
        let (troubles, one, other) = (Troubles::default(), CustomCsrId::new(now()), CustomCsrId::new(now()));
        let secs: Vec<_> = (0..8).map(|_| troubles.pause(one).as_secs()).collect();
        assert_eq!(secs, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(troubles.pause(other).as_secs(), 1);
        troubles.clear(one);
        assert_eq!(troubles.pause(one).as_secs(), 1);
    }
}
