//! Where uploaded chains are judged: beside the threads that answer requests, and few at once.

use std::panic::resume_unwind;

use tokio::{sync::Semaphore, task};

/// Chains that are judged at once; the others wait their turn.
const AT_ONCE: usize = 2;

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// Runs what verifies signatures, which takes milliseconds of a processor; none where the process ends before it is done. The place is
/// taken until the work ends, even if nobody waits for it any longer.
#[expect(clippy::disallowed_methods, reason = "up to ten signatures are verified, far longer than a request thread may be kept")]
pub async fn judge<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let place = PLACES.acquire().await.ok()?;
    let judged = task::spawn_blocking(move || {
        let judged = work();
        drop(place);
        judged
    });
    match judged.await {
        Ok(judged) => Some(judged),
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
    async fn few_chains_are_judged_at_once_and_all_in_the_end() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let judged = join_all((0..20).map(|number| {
            judge(move || {
                MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                NOW.fetch_sub(1, Ordering::SeqCst);
                number
            })
        }));
        assert_eq!(judged.await, (0..20).map(Some).collect::<Vec<_>>());
        assert!((1..=AT_ONCE).contains(&MOST.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        for _ in 0..=AT_ONCE {
            let panicked = tokio::spawn(judge(|| panic!("on purpose"))).await;
            assert!(panicked.unwrap_err().is_panic());
        }
        assert_eq!(judge(|| 1).await, Some(1));
    }
}
