//! Asks the issuers of certificates when they want them renewed (ARI, RFC 9773).

use std::{sync::Arc, time::Duration};

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
/// How long a directory is remembered, and that an issuer does not answer.
const DIRECTORY_LIFE: Duration = Duration::from_hours(24);
const SILENCE_LIFE: Duration = Duration::from_mins(1);

/// Where the renewalInfo of an issuer is, or why it is not asked, and until when that is remembered.
type Known = (Instant, Result<Url, String>);

/// An issuer that is asked.
pub struct Issuer {
    directory: AriDirectory,
    known: Mutex<Option<Known>>,
}

impl Issuer {
    /// One of which nothing is known yet.
    #[must_use]
    pub fn new(directory: AriDirectory) -> Self {
        Self { directory, known: Mutex::default() }
    }

    /// Does not ask it for a while: each request would wait until its time is over, and the other issuers with it.
    async fn rest(&self, reason: &str) {
        *self.known.lock().await = Some((Instant::now() + SILENCE_LIFE, Err(reason.to_owned())));
    }
}

/// Why an issuer said nothing of use.
struct Trouble {
    reason: String,
    /// Whether the issuer was not asked, since it did not answer just now.
    is_known: bool,
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self { reason, is_known: false }
    }
}

/// Asks.
pub struct Asker {
    /// Stores the certificates.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How requests are sent.
    pub settings: OutboundSettings,
    /// Whom to ask.
    pub issuers: Vec<Issuer>,
    /// The time between two looks, if it is shorter than half a minute.
    pub interval: Duration,
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
            self.tell_renew_now().await?;
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
                return self.tell_renew_now().await;
            }
        }
    }

    async fn tell_renew_now(&self) -> Result<(), StoreError> {
        let told = self.store.tell_renew_now(self.clock.now()).await?;
        if told > 0 {
            tracing::info!(told, "issuers want certificates renewed now");
        }
        Ok(())
    }

    async fn ask(self: Arc<Self>, outbound: Arc<Outbound>, unasked: Unasked) {
        let issuer = unasked.issued_by.as_ref().and_then(|issued| self.issuers.iter().find(|issuer| issued.is_at(&issuer.directory)));
        let (asked, next) = match (issuer, &unasked.issued_by) {
            (Some(issuer), Some(by)) => match self.renewal_info(&outbound, issuer, &by.certificate_id()).await {
                Ok((info, retry_after)) => {
                    let moment = info.moment();
                    (Asked::Answered(info, moment), ask_again(retry_after.as_deref(), self.clock.now()))
                }
                Err(trouble) => {
                    let next = ask_again_after_error(unasked.errors + 1, self.clock.now());
                    complain(&unasked, &issuer.directory.issuer, &trouble, &next.rfc3339());
                    (Asked::Failed, next)
                }
            },
            _ => (Asked::NotAsked, ask_again(None, self.clock.now())),
        };
        if let Err(error) = self.store.end_asking(&unasked, &asked, next).await {
            tracing::warn!(certificate_id = %unasked.id, %error, "an issuer's answer was not stored: it is asked again");
        }
    }

    async fn renewal_info(
        &self,
        outbound: &Outbound,
        issuer: &Issuer,
        certificate_id: &str,
    ) -> Result<(RenewalInfo, Option<String>), Trouble> {
        let base = self.renewal_info_of(outbound, issuer).await?;
        let place = format!("{}/{certificate_id}", base.as_str().trim_end_matches('/'));
        let place = Gate::new(self.settings.reach).target(&place).map_err(|reason| format!("its renewalInfo {reason}"))?;
        let answer = match outbound.ask(&place, "application/json").await {
            Ok(answer) => answer,
            Err(error) => {
                let reason = error.to_string();
                if error.is_late() {
                    issuer.rest(&reason).await;
                }
                return Err(reason.into());
            }
        };
        let info = RenewalInfo::parse(&answer.body).map_err(|reason| format!("the answer {reason}"))?;
        Ok((info, answer.retry_after))
    }

    /// Where the renewalInfo of an issuer is. One task asks; the others of this issuer wait for what it finds.
    async fn renewal_info_of(&self, outbound: &Outbound, issuer: &Issuer) -> Result<Url, Trouble> {
        let mut known = issuer.known.lock().await;
        if let Some((_, found)) = known.as_ref().filter(|(until, _)| Instant::now() < *until) {
            return found.clone().map_err(|reason| Trouble { reason, is_known: true });
        }
        let found = self.find_renewal_info(outbound, &issuer.directory).await;
        let life = if found.is_ok() { DIRECTORY_LIFE } else { SILENCE_LIFE };
        *known = Some((Instant::now() + life, found.clone()));
        Ok(found?)
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

/// Says in the log what an issuer did not say; once for all certificates about which it is not asked while it does not answer.
fn complain(unasked: &Unasked, issuer: &str, Trouble { reason, is_known }: &Trouble, next: &str) {
    let certificate_id = unasked.id;
    if *is_known {
        tracing::debug!(%certificate_id, issuer, error = reason, next, "an issuer that does not answer was not asked");
    } else {
        tracing::warn!(%certificate_id, issuer, error = reason, next, "an issuer does not say when it wants a certificate renewed");
    }
}
