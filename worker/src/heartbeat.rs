//! The heartbeat of a worker.

use std::time::Duration;

/// The longest time between two searches for jobs of silent workers.
const LOOKS_FOR_ORPHANS: Duration = Duration::from_secs(3);

/// How often a worker shows that it lives, and when the others assume that it is dead.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// The longest time between two heartbeats.
    pub interval: Duration,
    /// After this time without a heartbeat, other workers run its jobs.
    pub orphan_after: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), orphan_after: Duration::from_secs(30) }
    }
}

impl Heartbeat {
    /// The interval that apalis gets. With each heartbeat a worker also searches for the jobs of silent workers, and skips those that are
    /// locked at that moment. So heartbeats are frequent, whatever the setting: such jobs must not wait for long after `orphan_after`.
    pub(crate) fn frequent(self) -> Duration {
        self.interval.min(LOOKS_FOR_ORPHANS)
    }

    /// `orphan_after` in whole heartbeats, as apalis counts it.
    pub(crate) fn missed(self) -> usize {
        let missed = self.orphan_after.as_millis().div_ceil(self.frequent().as_millis().max(1));
        usize::try_from(missed).unwrap_or(usize::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_a_silent_worker_are_found_soon_after_it_counts_as_dead_and_never_before() {
        for interval in [1, 2, 3, 7, 10, 60].map(Duration::from_secs) {
            for orphan_after in [interval * 2, interval * 2 + Duration::from_secs(1), Duration::from_secs(30).max(interval * 2)] {
                let heartbeat = Heartbeat { interval, orphan_after };
                let counts_as_dead_after = heartbeat.frequent() * u32::try_from(heartbeat.missed()).unwrap();
                assert!(counts_as_dead_after >= orphan_after, "{heartbeat:?}");
                // Twice: the first look may find the jobs locked.
                assert!(counts_as_dead_after + heartbeat.frequent() * 2 < orphan_after + Duration::from_secs(10), "{heartbeat:?}");
            }
        }
    }
}
