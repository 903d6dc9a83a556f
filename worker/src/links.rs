//! The hand-over links of events.

use std::sync::{Arc, Once};

use shared::{clock::Clock, handover::EventLinks, seal::Sealer, storage::Store};
use tokio::sync::OnceCell;

use crate::webhook_key::{NoWebhookKey, webhook_key};

/// Makes the hand-over links of events, if the process knows the service's URL.
pub struct Links {
    /// The URL that they begin with, without a slash at the end.
    pub public_url: Option<String>,
    /// Stores the key pair that their key is derived from.
    pub store: Arc<dyn Store>,
    /// Opens it.
    pub sealer: Arc<Sealer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Made for the first link: the key pair stays the same.
    pub made: OnceCell<EventLinks>,
    /// Whether the log says that events have no links.
    pub said: Once,
}

impl Links {
    /// Returns what makes links, or `None` without `--public-url`: then events have none, and the log says so once.
    ///
    /// # Errors
    ///
    /// [`NoWebhookKey`] if the database does not answer, or this process lacks the master key.
    pub async fn get(&self) -> Result<Option<&EventLinks>, NoWebhookKey> {
        let Some(public_url) = &self.public_url else {
            self.said.call_once(|| tracing::warn!("events carry no hand-over links: set --public-url to where tenants reach the service"));
            return Ok(None);
        };
        let make = async || {
            let key = webhook_key(&*self.store, &self.sealer, &*self.clock).await?;
            Ok(EventLinks::new(public_url, &key, &self.sealer)?)
        };
        self.made.get_or_try_init(make).await.map(Some)
    }
}
