//! What happens on a connection, and when it has kept the server waiting for too long.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::middleware::UnreadBody;

/// How long nothing may arrive from a client that is waited for.
pub const SILENCE_TIME: Duration = Duration::from_secs(10);
/// How long a response may make no progress.
const PROGRESS_TIME: Duration = Duration::from_secs(30);
/// How long an HTTP/2 connection may go without a request, whatever else arrives on it.
const IDLE_TIME: Duration = Duration::from_mins(5);
/// How long a connection without requests may take to end once it has been told to.
pub const CLOSING_TIME: Duration = Duration::from_secs(1);
/// How many requests a client may take back on one connection, more than those that were answered.
const TAKEN_BACK_MAX: usize = 100;
/// The first bytes of an HTTP/2 connection.
const PREFACE_BYTES: usize = 24;

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// hyper bounds the time between requests and the time of their headers.
    Http1,
    /// hyper asks for signs of life, and ends a connection that sends none or half of one.
    Http2,
}

/// In which way a connection has kept the server waiting for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The rest of a body does not come: from now on reads fail, so that the request is answered.
    Body,
    /// No request comes, or the connection is not wanted any more: it is to end in order.
    Request,
    /// Nothing comes, nothing is taken, or all is taken back: it is to end at once.
    Everything,
}

/// The state of one connection. Its stream, requests and responses write it down here.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
    /// Something happens that does not wait for the next look.
    urgent: Notify,
    /// A request begins or ends.
    requests: Notify,
}

#[derive(Debug)]
struct State {
    protocol: Protocol,
    opened: Instant,
    /// Bytes that have arrived, up to [`PREFACE_BYTES`].
    arrived: usize,
    /// Since when a read waits for the client.
    waiting_since: Option<Instant>,
    /// Since when a write waits for the client.
    blocked_since: Option<Instant>,
    in_flight: Vec<(usize, Phase)>,
    begun: usize,
    answered: usize,
    taken_back: usize,
    last_request: Instant,
    last_answer: Instant,
    is_deaf: bool,
    is_unwanted: bool,
    closing_since: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// There is no response yet; something of the request's body may be missing.
    Asked(UnreadBody),
    /// Something of the response is left, which made progress last at this time.
    Answering(Instant),
}

impl Activity {
    /// That of a connection which begins now.
    #[must_use]
    pub fn new(protocol: Protocol) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            protocol,
            opened: now,
            arrived: 0,
            waiting_since: None,
            blocked_since: None,
            in_flight: Vec::new(),
            begun: 0,
            answered: 0,
            taken_back: 0,
            last_request: now,
            last_answer: now,
            is_deaf: false,
            is_unwanted: false,
            closing_since: None,
        };
        Arc::new(Self { state: Mutex::new(state), urgent: Notify::new(), requests: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection has kept the server waiting for too long.
    pub async fn until_overdue(&self) -> Overdue {
        loop {
            // Before the look, or a change right after it would go unnoticed.
            let urgent = self.urgent.notified();
            let judged = self.state().judge(Instant::now());
            match judged {
                Ok(look) => {
                    tokio::select! {
                        () = sleep_until(look) => {}
                        () = urgent => {}
                    }
                }
                Err(overdue) => return overdue,
            }
        }
    }

    /// Notes how many bytes arrived, or that a read waits for some.
    pub fn read(&self, bytes: Option<usize>) {
        let mut state = self.state();
        match bytes {
            Some(bytes) => {
                state.arrived = PREFACE_BYTES.min(state.arrived.saturating_add(bytes));
                state.waiting_since = None;
            }
            None => {
                state.waiting_since.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Notes that a write went on, or that it waits.
    pub fn wrote(&self, went_on: bool) {
        let mut state = self.state();
        if went_on {
            state.blocked_since = None;
        } else {
            state.blocked_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether reads are to fail, because the client is not waited for any longer.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.state().is_deaf
    }

    /// Has the connection end in order.
    pub fn end(&self) {
        self.state().is_unwanted = true;
        self.urgent.notify_waiters();
    }

    /// Whether no request came yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state().begun == 0
    }

    /// Whether a response is still to be made or taken.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state().is_busy()
    }

    /// Waits until a response is still to be made or taken, or until none is.
    pub async fn until_busy(&self, busy: bool) {
        loop {
            let requests = self.requests.notified();
            if self.is_busy() == busy {
                return;
            }
            requests.await;
        }
    }

    /// Notes that a request begins; `unread` says whether something of its body is missing.
    pub fn begin(self: &Arc<Self>, unread: &UnreadBody) -> InFlight {
        let mut state = self.state();
        state.begun += 1;
        state.last_request = Instant::now();
        let number = state.begun;
        state.in_flight.push((number, Phase::Asked(unread.clone())));
        drop(state);
        self.requests.notify_waiters();
        InFlight { activity: Arc::clone(self), number, is_finished: false }
    }
}

impl State {
    fn is_busy(&self) -> bool {
        !self.in_flight.is_empty() || self.blocked_since.is_some()
    }

    /// What the connection is overdue with, or when to look again: when it will be if nothing changes, and no later than it could be with
    /// what begins after this look.
    fn judge(&mut self, now: Instant) -> Result<Instant, Overdue> {
        let mut look = now + if self.closing_since.is_some() { CLOSING_TIME } else { SILENCE_TIME };
        let mut by = |time: Instant, overdue: Overdue| {
            look = look.min(time);
            if time <= now { Err(overdue) } else { Ok(()) }
        };
        if self.taken_back > TAKEN_BACK_MAX + self.answered {
            return Err(Overdue::Everything);
        }
        let progress = self.in_flight.iter().filter_map(|(_, phase)| match phase {
            Phase::Answering(progress) => Some(*progress),
            Phase::Asked(_) => None,
        });
        let stalled_since = progress.chain(self.blocked_since).min();
        if let Some(since) = stalled_since {
            by(since + PROGRESS_TIME, Overdue::Everything)?;
        }
        let waits_for_client = self.in_flight.iter().all(|(_, phase)| matches!(phase, Phase::Asked(unread) if unread.get()));
        let silent_since = self.waiting_since.filter(|_| waits_for_client && stalled_since.is_none());
        match (self.protocol, silent_since) {
            (Protocol::Http1, Some(since)) if !self.in_flight.is_empty() && !self.is_deaf => {
                let heard = by(since + SILENCE_TIME, Overdue::Body);
                self.is_deaf = heard.is_err();
                heard?;
            }
            (Protocol::Http2, Some(since)) => by(since.max(self.last_answer) + SILENCE_TIME, Overdue::Everything)?,
            _ => {}
        }
        if self.protocol == Protocol::Http2 && self.arrived < PREFACE_BYTES {
            by(self.opened + SILENCE_TIME, Overdue::Everything)?;
        }
        match self.closing_since {
            Some(since) if !self.is_busy() => by(since.max(self.last_answer) + CLOSING_TIME, Overdue::Everything)?,
            None if self.protocol == Protocol::Http2 => {
                let idle = if self.is_busy() { Ok(()) } else { by(self.last_request + IDLE_TIME, Overdue::Request) };
                if self.is_unwanted || idle.is_err() {
                    self.closing_since = Some(now);
                    return Err(Overdue::Request);
                }
            }
            _ => {}
        }
        Ok(look)
    }
}

/// A request until its response has been taken. Dropped before it is finished, it was taken back.
#[derive(Debug)]
pub struct InFlight {
    activity: Arc<Activity>,
    number: usize,
    is_finished: bool,
}

impl InFlight {
    /// Notes that the response is there, or that the client took a part of it.
    pub fn progress(&self) {
        let mut state = self.activity.state();
        if let Some((_, phase)) = state.in_flight.iter_mut().find(|(number, _)| *number == self.number) {
            *phase = Phase::Answering(Instant::now());
        }
    }

    /// Notes that nothing of the response is left for the client to wait for.
    pub const fn finish(&mut self) {
        self.is_finished = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.in_flight.retain(|(number, _)| *number != self.number);
        state.last_answer = Instant::now();
        if self.is_finished {
            state.answered += 1;
        } else {
            state.taken_back += 1;
            self.activity.urgent.notify_waiters();
        }
        drop(state);
        self.activity.requests.notify_waiters();
    }
}
