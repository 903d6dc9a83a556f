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
    time::{Interval, MissedTickBehavior},
};

/// Looks for jobs at every event, and at every tick in case an event was missed.
///
/// apalis' own strategies register no waker when they are ready, so that a worker misses events until its next heartbeat. This one polls
/// both its sources until both are pending.
pub struct EventsAndTicks<S> {
    events: S,
    ended: bool,
    tick: Interval,
    stopped: watch::Receiver<bool>,
}

impl<S> EventsAndTicks<S> {
    /// Looks for jobs at every event of `events`, and every `period`, until `stopped`.
    pub fn new(events: S, period: Duration, stopped: watch::Receiver<bool>) -> Self {
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { events, ended: false, tick, stopped }
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
                Poll::Ready(Some(_)) => due = true,
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
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
