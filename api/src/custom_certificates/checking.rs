//! Checks chains on threads of their own, few at the same time: those that answer requests must not wait for them.

use std::panic::resume_unwind;

use tokio::{sync::Semaphore, task};

/// Chains that are checked at the same time; the others wait their turn.
const MAX_RUNNING: usize = 2;

static PLACES: Semaphore = Semaphore::const_new(MAX_RUNNING);

/// Runs work that verifies signatures, which takes milliseconds of a processor. Returns `None` if the process ends before it is done. The
/// work keeps its place until it ends, even if nobody waits for it any longer.
#[expect(clippy::disallowed_methods, reason = "up to ten signatures are verified, far longer than a request thread may be kept")]
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let place = PLACES.acquire().await.ok()?;
    let done = task::spawn_blocking(move || {
        let result = work();
        drop(place);
        result
    });
    match done.await {
        Ok(result) => Some(result),
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn few_run_at_the_same_time_and_all_in_the_end() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let results = join_all((0..20).map(|number| {
            run(move || {
                MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                NOW.fetch_sub(1, Ordering::SeqCst);
                number
            })
        }));
        assert_eq!(results.await, (0..20).map(Some).collect::<Vec<_>>());
        assert!((1..=MAX_RUNNING).contains(&MOST.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        for _ in 0..=MAX_RUNNING {
            let panicked = tokio::spawn(run(|| panic!("on purpose"))).await;
            assert!(panicked.unwrap_err().is_panic());
        }
        assert_eq!(run(|| 1).await, Some(1));
    }
}
