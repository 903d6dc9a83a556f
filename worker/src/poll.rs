//! When a worker looks for jobs.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{PollSnapshot, PollStrategy};
use futures::Stream;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, Sleep, sleep},
};

/// How long after an event the worker looks again for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(3);
/// How many times longer each pause after it is.
const LONGER: u32 = 4;

/// Looks for jobs at every event, and at every tick in case an event was missed.
///
/// apalis does not ask the database twice at once, and an answer may be from before the event that came meanwhile: so the worker looks again
/// after each event, a few times.
///
/// apalis' own strategies register no waker when they are ready, so that a worker misses events until its next heartbeat. This one polls
/// all its sources until they are pending.
pub struct EventsAndTicks<S> {
    events: S,
    ended: bool,
    again: Again,
    tick: Interval,
    stopped: watch::Receiver<bool>,
}

impl<S> EventsAndTicks<S> {
    /// Looks for jobs at every event of `events`, and every `period`, until `stopped`.
    pub fn new(events: S, period: Duration, stopped: watch::Receiver<bool>) -> Self {
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { events, ended: false, again: Again::new(period), tick, stopped }
    }
}

impl<S: Stream + Unpin> PollStrategy for EventsAndTicks<S> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        if *self.stopped.borrow() {
            return Poll::Pending;
        }
        let mut due = false;
        while !self.ended {
            match Pin::new(&mut self.events).poll_next(cx) {
                Poll::Ready(Some(_)) => {
                    due = true;
                    self.again.after(FIRST_PAUSE);
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        while self.again.poll(cx).is_ready() {
            due = true;
        }
        while self.tick.poll_tick(cx).is_ready() {
            due = true;
        }
        if due {
            cx.waker().wake_by_ref();
            Poll::Ready(Some(()))
        } else {
            Poll::Pending
        }
    }
}

/// The looks after an event: each pause is longer than the one before it, until the ticks come more often.
struct Again {
    next: Pin<Box<Sleep>>,
    /// `None` once there is no next one.
    pause: Option<Duration>,
    longest: Duration,
}

impl Again {
    fn new(longest: Duration) -> Self {
        Self { next: Box::pin(sleep(Duration::ZERO)), pause: None, longest }
    }

    fn after(&mut self, pause: Duration) {
        self.next.as_mut().reset(Instant::now() + pause);
        self.pause = Some(pause);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pause) = self.pause else { return Poll::Pending };
        std::task::ready!(self.next.as_mut().poll(cx));
        self.pause = None;
        if pause * LONGER < self.longest {
            self.after(pause * LONGER);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::stream;

    use super::*;

    /// The next time it says that the worker is to look, in milliseconds after `began`.
    async fn look(strategy: &mut EventsAndTicks<impl Stream + Unpin>, began: Instant) -> u128 {
        poll_fn(|cx| strategy.poll_drive(cx, &PollSnapshot::new())).await;
        began.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_event_the_worker_looks_again_since_the_answer_under_way_may_be_from_before_it() {
        let (enqueued, events) = watch::channel(());
        let events = stream::unfold(events, |mut events| async move { events.changed().await.ok().map(|()| ((), events)) });
        let (_stop, stopped) = watch::channel(false);
        let mut strategy = EventsAndTicks::new(Box::pin(events), Duration::from_millis(500), stopped);
        let began = Instant::now();
        assert_eq!(look(&mut strategy, began).await, 0, "the first tick");

        tokio::time::sleep(Duration::from_millis(100)).await;
        enqueued.send_replace(());
        let mut looks = Vec::new();
        for _ in 0..6 {
            looks.push(look(&mut strategy, began).await);
        }
        // The timer counts whole milliseconds, up.
        let expected = [100, 103, 115, 163, 355, 500];
        assert!(looks.iter().zip(expected).all(|(look, expected)| look.abs_diff(expected) <= 5), "{looks:?}");

        // The second of two events begins anew.
        enqueued.send_replace(());
        assert_eq!(look(&mut strategy, began).await, looks[5]);
        enqueued.send_replace(());
        assert_eq!(look(&mut strategy, began).await, looks[5]);
        let next = look(&mut strategy, began).await;
        assert!((3..=5).contains(&(next - looks[5])), "{next}, and {looks:?} before");
    }
}
