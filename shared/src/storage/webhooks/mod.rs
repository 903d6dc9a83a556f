//! Webhooks: made, read, changed and deleted by their tenants. The database itself writes what they are to be told: triggers, which see
//! every change of a row, whoever makes it.

mod deliveries;

use async_trait::async_trait;

#[cfg(test)]
pub(super) use self::deliveries::STATEMENTS as DELIVERY_STATEMENTS;
pub use self::deliveries::{Attempt, Deliveries, Due, Receiver};
use super::{
    Dialect, SqlStore, StoreError,
    engine::{Lent, Reader, Sql, statements, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    events::PING,
    ids::{Scope, WebhookId},
    webhook::{DELIVERIES_SHOWN, Delivery, DeliveryStatus, WEBHOOKS_MAX, Webhook},
    webhook_secret::WebhookKey,
};

/// A webhook about to be made.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// Its ID, chosen by the caller.
    pub id: WebhookId,
    /// The zone or account.
    pub scope: Scope,
    /// Where events are posted to.
    pub url: String,
    /// The types of events, or `*`.
    pub events: Vec<String>,
    /// The tenant's own description.
    pub description: Option<String>,
    /// Whether it is told of events.
    pub enabled: bool,
    /// The key pair whose public key sealed the secret.
    pub webhook_key_id: String,
    /// The secret, sealed.
    pub sealed_secret: Vec<u8>,
}

/// What became of an attempt to make a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookCreation {
    /// It is stored.
    Created(Box<Webhook>),
    /// The scope was not granted custom CSRs (1404).
    NotGranted,
    /// The scope has [`WEBHOOKS_MAX`] of them (1494).
    TooMany,
}

/// Changes of a webhook: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookChange {
    /// Another URL.
    pub url: Option<String>,
    /// Other types of events.
    pub events: Option<Vec<String>>,
    /// Another description, or none.
    pub description: Option<Option<String>>,
    /// Whether it is told of events. Enabling it forgets why the service disabled it, and disabling it gives up what is pending.
    pub enabled: Option<bool>,
}

/// The part of the storage that is webhooks. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Stores a webhook, unless its scope has as many as it may have.
    async fn create_webhook(&self, new: &NewWebhook, actor: &Actor, now: Timestamp) -> Result<WebhookCreation, StoreError>;

    /// The webhook with this ID in this scope.
    async fn find_webhook(&self, scope: &Scope, id: WebhookId) -> Result<Option<Webhook>, StoreError>;

    /// The webhooks of a scope, the newest first.
    async fn list_webhooks(&self, scope: &Scope) -> Result<Vec<Webhook>, StoreError>;

    /// Changes a webhook; none where there is no such webhook.
    async fn edit_webhook(
        &self,
        scope: &Scope,
        id: WebhookId,
        change: &WebhookChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<Webhook>, StoreError>;

    /// Deletes a webhook with its secret and its deliveries; false where there is none.
    async fn delete_webhook(&self, scope: &Scope, id: WebhookId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError>;

    /// Has a webhook told a ping, enabled or not; none where there is no such webhook. `delivery_id` is chosen by the caller.
    async fn ping_webhook(&self, scope: &Scope, id: WebhookId, delivery_id: &str, now: Timestamp) -> Result<Option<Delivery>, StoreError>;

    /// The last [`DELIVERIES_SHOWN`] deliveries of a webhook, the newest first; none where there is no such webhook.
    async fn list_deliveries(&self, scope: &Scope, id: WebhookId) -> Result<Option<Vec<Delivery>>, StoreError>;

    /// Deletes what the webhooks of others were told, or are to be told, of this zone or account; all but that its certificates are deleted, where
    /// that is still to be told. Returns how many deliveries.
    async fn forget_told(&self, scope: &Scope) -> Result<u64, StoreError>;

    /// The key pair whose public key seals secrets, or `None` if there is none yet.
    async fn find_webhook_key(&self) -> Result<Option<WebhookKey>, StoreError>;

    /// Stores a key pair, unless there is one.
    async fn add_webhook_key(&self, key: &WebhookKey, now: Timestamp) -> Result<(), StoreError>;
}

macro_rules! webhook_columns {
    () => {
        "id, scope, url, events, description, enabled, disabled_reason, created_at, updated_at"
    };
}

macro_rules! delivery_columns {
    () => {
        "id, event, occurred_at, status, attempts, response_status, next_attempt_at"
    };
}

/// Not that a certificate is deleted, which is still to be told.
macro_rules! told {
    () => {
        " AND NOT (status = 'pending' AND event = 'custom_certificate.deleted')"
    };
}

statements! {
    /// One at a time makes a webhook in a scope that is granted.
    LOCK_GRANTED_SCOPE = "UPDATE scopes SET updated_at = updated_at WHERE scope = $1 AND granted = 1";
    COUNT_WEBHOOKS = "SELECT COUNT(*) AS total FROM webhooks WHERE scope = $1";
    INSERT_WEBHOOK = concat!(
        "INSERT INTO webhooks (id, scope, url, events, description, enabled, webhook_key_id, sealed_secret, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) RETURNING ",
        webhook_columns!()
    );
    FIND_WEBHOOK = concat!("SELECT ", webhook_columns!(), " FROM webhooks WHERE id = $1 AND scope = $2");
    LIST_WEBHOOKS = concat!("SELECT ", webhook_columns!(), " FROM webhooks WHERE scope = $1 ORDER BY created_at DESC, id DESC");
    /// The description is changed if the flag before it is 1, all else unless it is null.
    EDIT_WEBHOOK = concat!(
        "UPDATE webhooks SET url = COALESCE($3, url), events = COALESCE($4, events), \
         description = CASE WHEN CAST($5 AS BIGINT) = 1 THEN $6 ELSE description END, enabled = COALESCE($7, enabled), \
         disabled_reason = CASE WHEN CAST($7 AS BIGINT) IS NULL THEN disabled_reason ELSE NULL END, \
         given_up = CASE WHEN CAST($7 AS BIGINT) = 1 THEN 0 ELSE given_up END, updated_at = $8 WHERE id = $1 AND scope = $2 RETURNING ",
        webhook_columns!()
    );
    DELETE_WEBHOOK = "DELETE FROM webhooks WHERE id = $1 AND scope = $2";
    FORGET_TOLD {
        sqlite: concat!("DELETE FROM deliveries WHERE json_extract(data, '$.scope') = $1", told!()),
        postgres: concat!("DELETE FROM deliveries WHERE CAST(data AS json) ->> 'scope' = $1", told!()),
    };
    pub(super) GIVE_UP_PENDING = "UPDATE deliveries SET status = 'failed', next_attempt_at = NULL WHERE webhook_id = $1 AND status = 'pending'";
    INSERT_PING = concat!(
        "INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at) VALUES ($1, $2, $3, $4, $5, 0) RETURNING ",
        delivery_columns!()
    );
    LIST_DELIVERIES = concat!(
        "SELECT ", delivery_columns!(), " FROM deliveries WHERE webhook_id = $1 ORDER BY occurred_at DESC, id DESC LIMIT $2"
    );
    FIND_WEBHOOK_KEY = "SELECT id, scope, public_key, spki_sha256, master_key_id, sealed_private_key FROM webhook_keys \
        ORDER BY created_at, id LIMIT 1";
    ADD_WEBHOOK_KEY = "INSERT INTO webhook_keys (id, scope, public_key, spki_sha256, master_key_id, sealed_private_key, created_at) \
        SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), $3, $4, CAST($5 AS TEXT), $6, CAST($7 AS BIGINT) \
        WHERE NOT EXISTS (SELECT 1 FROM webhook_keys)";
}

impl<DB: Dialect> Reader<'_, DB> {
    fn webhook(&self) -> Result<Webhook, StoreError> {
        Ok(Webhook {
            id: self.parsed("id", WebhookId::parse)?,
            scope: self.scope()?,
            url: self.text("url")?,
            events: self.parsed("events", |json| serde_json::from_str(json).ok())?,
            description: self.optional_text("description")?,
            enabled: self.int("enabled")? == 1,
            disabled_reason: self.optional_text("disabled_reason")?,
            created_at: Timestamp::from_micros(self.int("created_at")?),
            updated_at: Timestamp::from_micros(self.int("updated_at")?),
        })
    }

    fn delivery(&self) -> Result<Delivery, StoreError> {
        Ok(Delivery {
            id: self.text("id")?,
            event: self.text("event")?,
            occurred_at: Timestamp::from_micros(self.int("occurred_at")?),
            status: self.parsed("status", DeliveryStatus::parse)?,
            attempts: self.count("attempts")?,
            response_status: self.optional_int("response_status")?.and_then(|status| u16::try_from(status).ok()),
            // Zero is at once: at the moment of the event.
            next_attempt_at: self
                .optional_int("next_attempt_at")?
                .map(|at| self.int("occurred_at").map(|occurred_at| Timestamp::from_micros(at.max(occurred_at))))
                .transpose()?,
        })
    }

    pub(super) fn webhook_key(&self) -> Result<WebhookKey, StoreError> {
        Ok(WebhookKey {
            id: self.text("id")?,
            scope: self.text("scope")?,
            public_key: self.blob("public_key")?,
            spki_sha256: self.digest("spki_sha256")?,
            master_key_id: self.text("master_key_id")?,
            sealed_private_key: self.blob("sealed_private_key")?,
        })
    }
}

fn json(events: &[String]) -> Result<String, StoreError> {
    serde_json::to_string(events).map_err(|error| StoreError::Internal(error.to_string()))
}

impl<DB: Dialect> Sql<DB> {
    async fn webhook_exists(&self, tx: &mut Lent<DB>, scope: &Scope, id: WebhookId) -> Result<bool, StoreError> {
        Ok(!self.fetch(tx, FIND_WEBHOOK, values![id.to_string(), scope.to_string()]).await?.is_empty())
    }
}

#[async_trait]
impl<DB: Dialect> Webhooks for SqlStore<DB> {
    async fn create_webhook(&self, new: &NewWebhook, actor: &Actor, now: Timestamp) -> Result<WebhookCreation, StoreError> {
        let scope = new.scope.to_string();
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, LOCK_GRANTED_SCOPE, values![scope.clone()]).await? == 0 {
            return Ok(WebhookCreation::NotGranted);
        }
        if self.sql.total(&mut tx, COUNT_WEBHOOKS, values![scope.clone()]).await? >= i64::from(WEBHOOKS_MAX) {
            return Ok(WebhookCreation::TooMany);
        }
        let values = values![
            new.id.to_string(),
            scope,
            new.url.clone(),
            json(&new.events)?,
            new.description.clone(),
            i64::from(new.enabled),
            new.webhook_key_id.clone(),
            new.sealed_secret.clone(),
            now.micros(),
        ];
        let rows = self.sql.fetch(&mut tx, INSERT_WEBHOOK, values).await?;
        let row = rows.first().ok_or_else(|| StoreError::Internal("a row was expected".to_owned()))?;
        let webhook = Reader::<DB>(row).webhook()?;
        self.sql.record(&mut tx, &NewEntry::webhook(Action::Create, new.id, &new.scope), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(WebhookCreation::Created(Box::new(webhook)))
    }

    async fn find_webhook(&self, scope: &Scope, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
        let rows = self.sql.rows(FIND_WEBHOOK, values![id.to_string(), scope.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).webhook()).transpose()
    }

    async fn list_webhooks(&self, scope: &Scope) -> Result<Vec<Webhook>, StoreError> {
        self.sql.rows(LIST_WEBHOOKS, values![scope.to_string()]).await?.iter().map(|row| Reader::<DB>(row).webhook()).collect()
    }

    async fn edit_webhook(
        &self,
        scope: &Scope,
        id: WebhookId,
        change: &WebhookChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<Webhook>, StoreError> {
        if *change == WebhookChange::default() {
            return self.find_webhook(scope, id).await;
        }
        let values = values![
            id.to_string(),
            scope.to_string(),
            change.url.clone(),
            change.events.as_deref().map(json).transpose()?,
            i64::from(change.description.is_some()),
            change.description.clone().flatten(),
            change.enabled.map(i64::from),
            now.micros(),
        ];
        let mut tx = self.sql.begin_write().await?;
        let rows = self.sql.fetch(&mut tx, EDIT_WEBHOOK, values).await?;
        let Some(webhook) = rows.first().map(|row| Reader::<DB>(row).webhook()).transpose()? else { return Ok(None) };
        if change.enabled == Some(false) {
            self.sql.execute(&mut tx, GIVE_UP_PENDING, values![id.to_string()]).await?;
        }
        self.sql.record(&mut tx, &NewEntry::webhook(Action::Edit, id, scope), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(Some(webhook))
    }

    async fn delete_webhook(&self, scope: &Scope, id: WebhookId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, DELETE_WEBHOOK, values![id.to_string(), scope.to_string()]).await? == 0 {
            return Ok(false);
        }
        self.sql.record(&mut tx, &NewEntry::webhook(Action::Delete, id, scope), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(true)
    }

    async fn ping_webhook(&self, scope: &Scope, id: WebhookId, delivery_id: &str, now: Timestamp) -> Result<Option<Delivery>, StoreError> {
        let kind = scope.kind();
        let data = serde_json::json!({ "webhook_id": id.to_string(), format!("{kind}_id"): scope.id().as_str() }).to_string();
        let mut tx = self.sql.begin_write().await?;
        if !self.sql.webhook_exists(&mut tx, scope, id).await? {
            return Ok(None);
        }
        let values = values![delivery_id, id.to_string(), PING, data, now.micros()];
        let rows = self.sql.fetch(&mut tx, INSERT_PING, values).await?;
        let delivery = rows.first().map(|row| Reader::<DB>(row).delivery()).transpose()?;
        self.sql.commit(tx).await?;
        Ok(delivery)
    }

    async fn list_deliveries(&self, scope: &Scope, id: WebhookId) -> Result<Option<Vec<Delivery>>, StoreError> {
        let mut tx = self.sql.begin_read().await?;
        if !self.sql.webhook_exists(&mut tx, scope, id).await? {
            return Ok(None);
        }
        let rows = self.sql.fetch(&mut tx, LIST_DELIVERIES, values![id.to_string(), i64::from(DELIVERIES_SHOWN)]).await?;
        rows.iter().map(|row| Reader::<DB>(row).delivery()).collect::<Result<_, _>>().map(Some)
    }

    async fn forget_told(&self, scope: &Scope) -> Result<u64, StoreError> {
        self.sql.write(FORGET_TOLD, values![scope.to_string()]).await
    }

    async fn find_webhook_key(&self) -> Result<Option<WebhookKey>, StoreError> {
        self.sql.rows(FIND_WEBHOOK_KEY, values![]).await?.first().map(|row| Reader::<DB>(row).webhook_key()).transpose()
    }

    async fn add_webhook_key(&self, key: &WebhookKey, now: Timestamp) -> Result<(), StoreError> {
        let values = values![
            key.id.clone(),
            key.scope.clone(),
            key.public_key.clone(),
            key.spki_sha256.to_vec(),
            key.master_key_id.clone(),
            key.sealed_private_key.clone(),
            now.micros(),
        ];
        self.sql.write(ADD_WEBHOOK_KEY, values).await.map(drop)
    }
}
