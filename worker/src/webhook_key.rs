//! The key pair that seals the secrets of webhooks. The key of hand-over links is derived from it.

use shared::{
    clock::Clock,
    seal::{SealError, Sealer},
    storage::{Store, StoreError},
    webhook_secret::WebhookKey,
};

/// Why there is no key pair to seal the secrets of webhooks.
#[derive(Debug, thiserror::Error)]
pub enum NoWebhookKey {
    /// The database does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This process lacks the master key that seals.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The key pair that seals the secrets of webhooks. It is made if there is none yet.
///
/// # Errors
///
/// [`NoWebhookKey`]
pub async fn webhook_key(store: &dyn Store, sealer: &Sealer, clock: &dyn Clock) -> Result<WebhookKey, NoWebhookKey> {
    if let Some(key) = store.find_webhook_key().await? {
        return Ok(key);
    }
    let key = WebhookKey::generate(ulid::Ulid::generate().to_string(), sealer)?;
    store.add_webhook_key(&key, clock.now()).await?;
    // Another process may have been faster.
    Ok(store.find_webhook_key().await?.unwrap_or(key))
}
