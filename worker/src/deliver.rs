//! Sends events to webhooks: one job for each webhook, however many deliveries wait for it, so that a slow receiver holds up no others.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use shared::{
    clock::Clock,
    events,
    ids::WebhookId,
    metrics::{self, WebhookOutcome},
    outbound::{Gate, HeaderMap, Outbound, OutboundError, OutboundSettings},
    seal::Sealer,
    storage::{Attempt, Due, Store, StoreError},
    trace::{self, Span},
    webhook::PAUSES,
    webhook_secret::WebhookSecret,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{links::Links, webhook_key::NoWebhookKey};

/// The most deliveries of one webhook that are under way at once.
const AT_ONCE: usize = 16;
/// A job ends after this time, and another one goes on: each is over before its worker could count as dead.
const SLICE: Duration = Duration::from_secs(10);
/// After this time without an end, a delivery is due again: its process was killed. An attempt takes 15 s at most.
const LEASE: Duration = Duration::from_secs(45);
/// Between two looks for webhooks with deliveries that are due.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts to open a secret that does not open.
const CLOSED: Duration = Duration::from_secs(10);

/// Where the deliveries of one webhook go.
struct Target {
    id: WebhookId,
    url: String,
    secret: WebhookSecret,
}

/// Delivers.
pub struct Deliverer {
    /// Stores the deliveries.
    pub store: Arc<dyn Store>,
    /// Opens the key pairs of secrets.
    pub sealer: Arc<Sealer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How requests are sent.
    pub settings: OutboundSettings,
    /// Makes the hand-over links of events.
    pub links: Arc<Links>,
    /// Made for the first delivery.
    pub outbound: OnceLock<Result<Outbound, OutboundError>>,
    /// Changes when this process has enqueued jobs.
    pub woken: watch::Sender<u64>,
}

impl Deliverer {
    /// Enqueues jobs for what is due, until told to stop.
    pub async fn wake(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            match self.store.wake_deliveries(self.clock.now()).await {
                Ok(0) => {}
                Ok(_) => self.woken.send_modify(|count| *count = count.wrapping_add(1)),
                // A database that is away has its own warnings.
                Err(error) => tracing::debug!(%error, "webhooks with deliveries were not looked for"),
            }
        }
    }

    /// Runs one job. It never fails: what is not delivered is due again.
    pub async fn run(self: Arc<Self>, id: WebhookId, mut stop: watch::Receiver<bool>) {
        let receiver = match self.store.find_receiver(id).await {
            Ok(Some(receiver)) => receiver,
            Ok(None) => return,
            Err(error) => return tracing::warn!(webhook_id = %id, %error, "deliveries wait for the database"),
        };
        let (webhook_id, scope) = (id.to_string(), receiver.scope.to_string());
        let Ok(secret) = WebhookSecret::open(&receiver.sealed_secret, &receiver.key, &self.sealer, &webhook_id, &scope) else {
            let master_key_id = receiver.key.master_key_id;
            tracing::error!(webhook_id, master_key_id, "the secret of a webhook does not open: its deliveries wait");
            tokio::select! {
                () = tokio::time::sleep(CLOSED) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            return;
        };
        if let Err(error) = self.deliver_all(Arc::new(Target { id, url: receiver.url, secret }), &stop).await {
            tracing::warn!(webhook_id, %error, "deliveries wait for the database");
        }
    }

    /// Delivers what is due, and what falls due meanwhile, for a while. After an error it takes no more, and those under way end.
    ///
    /// Each is a task of its own: one that waits here for the database would keep the others from giving their connections back.
    async fn deliver_all(self: Arc<Self>, target: Arc<Target>, stop: &watch::Receiver<bool>) -> Result<(), StoreError> {
        let (began, mut under_way, mut outcome) = (Instant::now(), JoinSet::new(), Ok(()));
        loop {
            let room = AT_ONCE - under_way.len();
            if room >= AT_ONCE / 2 && began.elapsed() < SLICE && outcome.is_ok() && !*stop.borrow() {
                let room = u32::try_from(room).unwrap_or_default();
                match self.store.take_due(target.id, room, LEASE, self.clock.now()).await {
                    Ok(due) => due.into_iter().for_each(|due| {
                        under_way.spawn(Arc::clone(&self).deliver(Arc::clone(&target), due));
                    }),
                    Err(error) => outcome = Err(error),
                }
            }
            match under_way.join_next().await {
                None => return outcome,
                Some(Ok(ended)) => outcome = outcome.and(ended),
                // Its panic is in the log, and its lease ends.
                Some(Err(_)) => {}
            }
        }
    }

    async fn deliver(self: Arc<Self>, target: Arc<Target>, due: Due) -> Result<(), StoreError> {
        let span = Span::delivery(&due.event);
        trace::within(span.as_ref(), self.deliver_in_span(target, due)).await
    }

    async fn deliver_in_span(&self, target: Arc<Target>, due: Due) -> Result<(), StoreError> {
        let handover_url = match events::handover(&due.data) {
            Some(id) => match self.links.get().await {
                Ok(links) => links.map(|links| links.url(id)),
                Err(NoWebhookKey::Store(error)) => return Err(error),
                Err(NoWebhookKey::Seal(_)) => {
                    tracing::error!(delivery_id = due.id, "the key of hand-over links cannot be unsealed: a delivery waits");
                    return Ok(());
                }
            },
            None => None,
        };
        let Some(body) = events::body(&due.event, due.occurred_at, &due.data, handover_url.as_deref()) else {
            tracing::error!(delivery_id = due.id, event = due.event, "a delivery is given up: what it is about cannot be read");
            ended(WebhookOutcome::Failed);
            return self.store.end_attempt(target.id, &due, Attempt::GivenUp, None, self.clock.now()).await;
        };
        let answer = self.post(&target, &due.id, body).await;
        let (status, now) = (answer.as_ref().ok().copied(), self.clock.now());
        let attempt = match status {
            Some(200..=299) => Attempt::Delivered,
            Some(410) => Attempt::Gone,
            _ => PAUSES.get(due.attempts as usize).map_or(Attempt::GivenUp, |pause| Attempt::Again(now.plus(*pause))),
        };
        ended(match attempt {
            Attempt::Delivered => WebhookOutcome::Delivered,
            Attempt::Again(_) => WebhookOutcome::Retried,
            Attempt::Gone | Attempt::GivenUp => WebhookOutcome::Failed,
        });
        tracing::debug!(delivery_id = due.id, webhook_id = %target.id, ?answer, ?attempt, "an attempt ended");
        self.store.end_attempt(target.id, &due, attempt, status, now).await
    }

    async fn post(&self, target: &Target, id: &str, body: String) -> Result<u16, OutboundError> {
        let outbound = self.outbound.get_or_init(|| Outbound::new(self.settings.ca_pem.as_deref(), self.settings.reach));
        let outbound = outbound.as_ref().map_err(Clone::clone)?;
        // Again as when it was registered: settings may have changed since.
        let url = Gate::new(self.settings.reach).target(&target.url).map_err(|reason| OutboundError::of_target(&reason))?;
        let timestamp = self.clock.now().secs();
        let mut headers = HeaderMap::new();
        let signature = target.secret.sign(id, timestamp, &body);
        for (name, value) in [("webhook-id", id), ("webhook-timestamp", &timestamp.to_string()), ("webhook-signature", &signature)] {
            headers.insert(name, value.parse().map_err(|_| OutboundError::of_target("is not for headers"))?);
        }
        outbound.post(&url, headers, body).await
    }
}

/// An attempt ended in this way.
fn ended(outcome: WebhookOutcome) {
    trace::ended(outcome.as_str(), outcome != WebhookOutcome::Delivered);
    metrics::webhook_delivered(outcome);
}
