//! Asks the issuers of certificates when they want them renewed (ARI, RFC 9773).

use std::{collections::HashMap, sync::Arc, time::Duration};

use shared::{
    ari::{AriDirectory, RenewalInfo, ask_again, ask_again_after_error, renewal_info_url},
    clock::Clock,
    outbound::{Gate, Outbound, OutboundError, OutboundSettings, Url},
    storage::{Asked, Store, StoreError, Unasked},
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::Instant,
};

/// The longest time between two looks.
const LOOK: Duration = Duration::from_secs(30);
/// Certificates to take at a time, and how many of them to ask about concurrently.
const BATCH: u32 = 100;
const AT_ONCE: usize = 8;
/// After this time, another process may ask about a certificate that a killed process took.
const LEASE: Duration = Duration::from_mins(5);
/// How long a directory is remembered, and how long an error.
const DIRECTORY_LIFE: Duration = Duration::from_hours(24);
const NO_DIRECTORY_LIFE: Duration = Duration::from_mins(1);

/// The URL of a directory's renewalInfo, or why there is none, and until when that is remembered.
type Known = (Instant, Result<Url, String>);

/// Asks issuers.
pub struct Asker {
    /// Stores the certificates.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How requests are sent.
    pub settings: OutboundSettings,
    /// The directories of the issuers to ask.
    pub directories: Vec<AriDirectory>,
    /// The time between two looks, if it is shorter than half a minute.
    pub interval: Duration,
    /// What was found for each directory, by its URL.
    pub known: Mutex<HashMap<String, Known>>,
}

impl Asker {
    /// Asks again and again, until told to stop.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let outbound = match Outbound::new(this.settings.ca_pem.as_deref(), this.settings.reach) {
            Ok(outbound) => Arc::new(outbound),
            Err(error) => return tracing::error!(%error, "issuers are not asked when they want certificates renewed"),
        };
        let (mut pause, mut is_new) = (Duration::ZERO, true);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            pause = this.interval.min(LOOK);
            if let Err(error) = Arc::clone(&this).look(&outbound, &mut is_new, &stop).await {
                tracing::warn!(%error, "issuers were not asked: the next look tries again");
            }
        }
    }

    async fn look(self: Arc<Self>, outbound: &Arc<Outbound>, is_new: &mut bool, stop: &watch::Receiver<bool>) -> Result<(), StoreError> {
        if *is_new {
            // An earlier process may have had other settings.
            let before = ask_again(None, self.clock.now());
            while self.store.look_again(before).await? > 0 {}
            *is_new = false;
        }
        loop {
            let now = self.clock.now();
            let taken = self.store.take_unasked(BATCH, now.plus(LEASE), now).await?;
            let is_last = taken.len() < BATCH as usize;
            let mut asking = JoinSet::new();
            for unasked in taken {
                if asking.len() >= AT_ONCE {
                    asking.join_next().await;
                }
                if !*stop.borrow() {
                    asking.spawn(Arc::clone(&self).ask(Arc::clone(outbound), unasked));
                }
            }
            asking.join_all().await;
            if is_last || *stop.borrow() {
                break;
            }
        }
        let told = self.store.tell_renew_now(self.clock.now()).await?;
        if told > 0 {
            tracing::info!(told, "issuers want certificates renewed now");
        }
        Ok(())
    }

    async fn ask(self: Arc<Self>, outbound: Arc<Outbound>, unasked: Unasked) {
        let directory = unasked.issued_by.as_ref().and_then(|issued| self.directories.iter().find(|directory| issued.is_at(directory)));
        let (asked, next) = match (directory, &unasked.issued_by) {
            (Some(directory), Some(by)) => match self.renewal_info(&outbound, directory, &by.certificate_id()).await {
                Ok((info, retry_after)) => {
                    let moment = info.moment();
                    (Asked::Answered(info, moment), ask_again(retry_after.as_deref(), self.clock.now()))
                }
                Err(error) => {
                    let next = ask_again_after_error(unasked.errors + 1, self.clock.now());
                    let (certificate_id, issuer) = (unasked.id, &directory.issuer);
                    tracing::warn!(%certificate_id, issuer, error, next = next.rfc3339(), "an issuer did not say when it wants a certificate renewed");
                    (Asked::Failed, next)
                }
            },
            _ => (Asked::NotAsked, ask_again(None, self.clock.now())),
        };
        if let Err(error) = self.store.end_asking(&unasked, &asked, next).await {
            tracing::warn!(%error, "an issuer's answer was not stored: it is asked again");
        }
    }

    async fn renewal_info(
        &self,
        outbound: &Outbound,
        directory: &AriDirectory,
        certificate_id: &str,
    ) -> Result<(RenewalInfo, Option<String>), String> {
        let base = self.renewal_info_of(outbound, directory).await?;
        let place = format!("{}/{certificate_id}", base.as_str().trim_end_matches('/'));
        let place = Gate::new(self.settings.reach).target(&place).map_err(|reason| format!("its renewalInfo {reason}"))?;
        let answer = outbound.ask(&place, "application/json").await.map_err(|error| error.to_string())?;
        let info = RenewalInfo::parse(&answer.body).map_err(|reason| format!("the answer {reason}"))?;
        Ok((info, answer.retry_after))
    }

    /// The URL of a directory's renewalInfo. One task asks; the others wait for its result.
    async fn renewal_info_of(&self, outbound: &Outbound, directory: &AriDirectory) -> Result<Url, String> {
        let mut known = self.known.lock().await;
        if let Some((_, found)) = known.get(&directory.url).filter(|(until, _)| Instant::now() < *until) {
            return found.clone();
        }
        let found = self.find_renewal_info(outbound, directory).await;
        let life = if found.is_ok() { DIRECTORY_LIFE } else { NO_DIRECTORY_LIFE };
        known.insert(directory.url.clone(), (Instant::now() + life, found.clone()));
        found
    }

    async fn find_renewal_info(&self, outbound: &Outbound, directory: &AriDirectory) -> Result<Url, String> {
        let gate = Gate::new(self.settings.reach);
        let of_directory = |error: OutboundError| format!("the directory: {error}");
        let place = gate.target(&directory.url).map_err(|reason| format!("the URL of the directory {reason}"))?;
        let answer = outbound.ask(&place, "application/json").await.map_err(of_directory)?;
        let url = renewal_info_url(&answer.body).map_err(|reason| format!("the directory {reason}"))?;
        gate.target(&url).map_err(|reason| format!("the renewalInfo of the directory {reason}"))
    }
}
