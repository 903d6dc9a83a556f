//! How many keys failed each check.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Check, Unfit};

/// Counts of keys that failed a check and were not used.
#[derive(Debug, Default)]
pub struct FailedChecks([AtomicU64; Check::ALL.len()]);

impl FailedChecks {
    /// Logs a key that failed a check, and counts it. Returns the error that says so.
    pub(crate) fn report(&self, check: Check) -> Unfit {
        self.0[check as usize].fetch_add(1, Ordering::Relaxed);
        tracing::error!(check = check.name(), "a new key failed a check and is not used: another one is made");
        Unfit(check)
    }

    /// Every check, and how many keys of this process failed it.
    pub fn counts(&self) -> impl Iterator<Item = (Check, u64)> {
        Check::ALL.iter().zip(&self.0).map(|(check, count)| (*check, count.load(Ordering::Relaxed)))
    }
}
