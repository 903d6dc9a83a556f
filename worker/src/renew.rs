//! Renews certificates by the policies of their zones: begins a renewal when it is due, and sends an event when there is a CSR to sign.

use std::{sync::Arc, time::Duration};

use shared::{
    audit::Actor,
    clock::Clock,
    storage::{DueRenewal, RenewalOutcome, RenewalStep, Store, StoreError},
};
use tokio::sync::watch;

use crate::links::Links;

/// Certificates to look at at a time.
const BATCH: u32 = 200;
/// The longest time between two looks.
const LOOK: Duration = Duration::from_secs(30);
/// The time until the next look after one that did something: making a custom CSR takes less.
const SOON: Duration = Duration::from_secs(1);

/// Renews certificates.
pub struct Renewer {
    /// Stores policies and renewals.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes the hand-over links of events.
    pub links: Arc<Links>,
    /// The time between two looks, if it is shorter than half a minute.
    pub interval: Duration,
}

impl Renewer {
    /// Looks for renewals again and again, until told to stop.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let usual = self.interval.min(LOOK);
            pause = match self.look(&stop).await {
                Ok(0) => usual,
                Ok(_) => usual.min(SOON),
                Err(error) => {
                    tracing::warn!(%error, "renewals were not looked for: the next look tries again");
                    usual
                }
            };
        }
    }

    /// Does the next step of every renewal that has one, and returns how many were done.
    async fn look(&self, stop: &watch::Receiver<bool>) -> Result<u64, StoreError> {
        let (mut done, mut after) = (0, String::new());
        loop {
            let (due, next) = self.store.list_due_renewals(&after, BATCH, self.clock.now()).await?;
            for renewal in &due {
                if *stop.borrow() {
                    return Ok(done);
                }
                match self.step(renewal).await {
                    Ok(RenewalOutcome::Done) => done += 1,
                    Ok(RenewalOutcome::Refused | RenewalOutcome::NotYet | RenewalOutcome::Overtaken) => {}
                    // A renewal that fails must not hold up the others, unless the database is unavailable.
                    Err(error @ (StoreError::Internal(_) | StoreError::Corrupt(_))) => {
                        tracing::error!(certificate_id = %renewal.certificate.id, %error, "a renewal failed: it is tried again");
                    }
                    Err(error) => return Err(error),
                }
            }
            match next {
                Some(last) => after = last,
                None => return Ok(done),
            }
        }
    }

    async fn step(&self, due: &DueRenewal) -> Result<RenewalOutcome, StoreError> {
        let (now, id) = (self.clock.now(), due.certificate.id);
        let link = match due.step {
            RenewalStep::Begin => None,
            RenewalStep::Announce(csr) => match self.links.get().await {
                Ok(links) => links.map(|links| links.fresh(csr, Some(id), now)),
                Err(error) => {
                    tracing::error!(certificate_id = %id, %error, "the key of hand-over links is not available: a renewal waits");
                    return Ok(RenewalOutcome::NotYet);
                }
            },
        };
        let outcome = self.store.renew(due, link.as_ref(), &Actor::worker("renewal"), now).await?;
        if outcome == RenewalOutcome::Done {
            tracing::info!(certificate_id = %id, zone = %due.certificate.zone.id(), step = ?due.step, "a renewal advanced");
        }
        Ok(outcome)
    }
}
