//! Deliveries to webhooks: woken for, taken, ended, and told of what only time brings.

use std::time::Duration;

use async_trait::async_trait;

use super::GIVE_UP_PENDING;
use crate::{
    clock::Timestamp,
    custom_certificate::LAST_SECOND,
    events::{EXPIRING_WITHIN, STALE_AFTER, expiry_moments},
    ids::{Scope, WebhookId},
    job::DELIVER_QUEUE,
    storage::{
        Dialect, SqlStore, StoreError,
        engine::{Reader, Sql, given_rows, statements, values},
        jobs::{NewJob, PUSH_JOBS},
    },
    webhook::{DELIVERIES_SHOWN, GIVEN_UP_MAX},
    webhook_secret::WebhookKey,
    x509::certificate::leaf_details,
};

/// To whom deliveries of a webhook go.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// The zone or account.
    pub scope: Scope,
    /// Where events are posted to.
    pub url: String,
    /// The secret, sealed.
    pub sealed_secret: Vec<u8>,
    /// The key pair that opens it.
    pub key: WebhookKey,
}

/// A delivery whose next attempt is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// Its ID.
    pub id: String,
    /// The type of the event.
    pub event: String,
    /// When the event occurred.
    pub occurred_at: Timestamp,
    /// The row that it is about, as JSON.
    pub data: String,
    /// Attempts that ended.
    pub attempts: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver took it.
    Delivered,
    /// It is tried again at this time.
    Again(Timestamp),
    /// It is given up.
    GivenUp,
    /// The receiver wants no more: 410.
    Gone,
}

/// The part of the storage that is deliveries. Each method is one transaction, as in [`super::super::Store`], but for the batches of a sweep.
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// Gives every webhook that has deliveries due, and no job that lives, a job; how many got one.
    async fn wake_deliveries(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// To whom this webhook's deliveries go; none where it is gone.
    async fn find_receiver(&self, id: WebhookId) -> Result<Option<Receiver>, StoreError>;

    /// Takes up to `limit` deliveries of a webhook that are due: unless they end before, they are due again after `lease`.
    async fn take_due(&self, id: WebhookId, limit: u32, lease: Duration, now: Timestamp) -> Result<Vec<Due>, StoreError>;

    /// Ends an attempt of a delivery. One that is gone, or disables its webhook, gives up what else is pending for it.
    async fn end_attempt(
        &self,
        webhook_id: WebhookId,
        due: &Due,
        attempt: Attempt,
        response_status: Option<u16>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Records the events that time brought until `now`: certificates that expire, and custom CSRs without one. Each is recorded once.
    async fn tell_time(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// Deletes deliveries that ended, but for the last ones of each webhook; how many.
    async fn purge_deliveries(&self) -> Result<u64, StoreError>;
}

/// Rows that one statement of a sweep looks at or deletes.
const BATCH: i64 = 500;

/// The scopes whose certificates and custom CSRs somebody is told of.
macro_rules! told_scopes {
    () => {
        "(SELECT scope FROM webhooks WHERE enabled = 1 UNION SELECT scopes.scope FROM scopes \
         JOIN webhooks ON webhooks.scope = 'accounts/' || scopes.account_id WHERE webhooks.enabled = 1)"
    };
}

statements! {
    /// Up to `$2` webhooks with deliveries that are due at `$1`, and without a job that lives.
    ASLEEP {
        sqlite: "SELECT id, job_id FROM webhooks WHERE id IN \
            (SELECT webhook_id FROM deliveries WHERE status = 'pending' AND next_attempt_at <= $1) AND NOT EXISTS \
            (SELECT 1 FROM Jobs WHERE Jobs.id = webhooks.job_id AND Jobs.status IN ('Pending', 'Queued', 'Running')) LIMIT $2",
        postgres: "SELECT id, job_id FROM webhooks WHERE id IN \
            (SELECT webhook_id FROM deliveries WHERE status = 'pending' AND next_attempt_at <= $1) AND NOT EXISTS \
            (SELECT 1 FROM apalis.jobs WHERE jobs.id = webhooks.job_id COLLATE \"default\" \
            AND jobs.status IN ('Pending', 'Queued', 'Running')) LIMIT $2",
    };
    /// Unless someone else just did.
    REPLACE_DELIVER_JOB = "UPDATE webhooks SET job_id = $2 WHERE id = $1 AND job_id = $3";
    FIND_RECEIVER = "SELECT webhook_keys.id, webhook_keys.scope, public_key, spki_sha256, master_key_id, sealed_private_key, \
        webhooks.scope AS tenant, url, sealed_secret FROM webhooks JOIN webhook_keys ON webhook_keys.id = webhooks.webhook_key_id \
        WHERE webhooks.id = $1";
    /// On SQLite one transaction at a time writes anyway.
    TAKE_DUE {
        sqlite: "UPDATE deliveries SET next_attempt_at = $4 WHERE id IN (SELECT id FROM deliveries WHERE webhook_id = $1 \
            AND status = 'pending' AND next_attempt_at <= $2 ORDER BY next_attempt_at, id LIMIT $3) \
            RETURNING id, event, data, occurred_at, attempts",
        postgres: "UPDATE deliveries SET next_attempt_at = $4 WHERE id IN (SELECT id FROM deliveries WHERE webhook_id = $1 \
            AND status = 'pending' AND next_attempt_at <= $2 ORDER BY next_attempt_at, id LIMIT $3 FOR UPDATE SKIP LOCKED) \
            RETURNING id, event, data, occurred_at, attempts",
    };
    /// Ends an attempt of a pending delivery, or of one that was given up while the attempt after `$5` others was under way: it is not tried again.
    END_ATTEMPT = "UPDATE deliveries SET status = CASE WHEN status = 'failed' AND $2 = 'pending' THEN 'failed' ELSE $2 END, \
        attempts = attempts + 1, response_status = $3, next_attempt_at = CASE WHEN status = 'failed' THEN NULL ELSE CAST($4 AS BIGINT) END \
        WHERE id = $1 AND (status = 'pending' OR status = 'failed' AND attempts = $5)";
    /// A delivery that is taken ends the row of those that were given up.
    FORGET_GIVEN_UP = "UPDATE webhooks SET given_up = 0 WHERE id = $1 AND given_up > 0";
    COUNT_GIVEN_UP = "UPDATE webhooks SET given_up = given_up + 1 WHERE id = $1 RETURNING given_up";
    DISABLE_WEBHOOK = "UPDATE webhooks SET enabled = 0, disabled_reason = $2, updated_at = $3 WHERE id = $1 AND enabled = 1";
    /// The next `$4` certificates with IDs over `$1` that expire before `$2`, of which something is left to be told at `$3`.
    NEAR_EXPIRY = concat!(
        "SELECT id, not_before, not_after, uploaded_at, expiry_told_until, CASE WHEN not_before IS NULL THEN chain_pem ELSE '' END AS chain_pem \
         FROM custom_certificates WHERE id > $1 AND not_after < $2 AND COALESCE(expiry_told_until, uploaded_at) <= not_after + $3 AND scope IN ",
        told_scopes!(),
        " ORDER BY id LIMIT $4"
    );
    /// Tells of certificate `$1`, unless somebody did or it was replaced meanwhile: a trigger writes it down.
    TELL_EXPIRY = "UPDATE custom_certificates SET expiry_told_until = $2, expiry_told_at = $3 \
        WHERE id = $1 AND not_after = $4 AND COALESCE(expiry_told_until, uploaded_at) < $2";
    /// Tells of up to `$3` custom CSRs that were accepted before `$1`, and lost their last certificate before then too, if they had one: a trigger
    /// writes it down.
    TELL_STALE = concat!(
        "UPDATE custom_csrs SET stale_told_at = $2 WHERE status = 'active' AND stale_told_at IS NULL AND id IN \
         (SELECT id FROM custom_csrs WHERE status = 'active' AND stale_told_at IS NULL AND created_at < $1 AND scope IN ",
        told_scopes!(),
        " AND NOT EXISTS (SELECT 1 FROM custom_certificates WHERE custom_csr_id = custom_csrs.id) \
         AND NOT EXISTS (SELECT 1 FROM freed_custom_csrs WHERE custom_csr_id = custom_csrs.id AND freed_at >= $1) ORDER BY id LIMIT $3)"
    );
    PURGE_DELIVERIES = "DELETE FROM deliveries WHERE id IN (SELECT id FROM (SELECT id, status, \
        row_number() OVER (PARTITION BY webhook_id ORDER BY occurred_at DESC, id DESC) AS place FROM deliveries) AS placed \
        WHERE place > $1 AND status <> 'pending' LIMIT $2)";
}

impl<DB: Dialect> Reader<'_, DB> {
    fn receiver(&self) -> Result<Receiver, StoreError> {
        Ok(Receiver {
            scope: self.parsed("tenant", Scope::parse)?,
            url: self.text("url")?,
            sealed_secret: self.blob("sealed_secret")?,
            key: self.webhook_key()?,
        })
    }

    fn due(&self) -> Result<Due, StoreError> {
        Ok(Due {
            id: self.text("id")?,
            event: self.text("event")?,
            occurred_at: Timestamp::from_micros(self.int("occurred_at")?),
            data: self.text("data")?,
            attempts: self.count("attempts")?,
        })
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Tells of what a certificate's row says that is due; how much. One that cannot be read is passed over.
    async fn tell_expiry(&self, row: &DB::Row, now: Timestamp) -> Result<u64, StoreError> {
        let row = Reader::<DB>(row);
        let (id, not_after) = (row.text("id")?, Timestamp::from_micros(row.int("not_after")?));
        let not_before = match row.optional_int("not_before")? {
            Some(not_before) => Timestamp::from_micros(not_before),
            None => row.parsed("chain_pem", leaf_details)?.not_before,
        };
        let told_until = row.optional_int("expiry_told_until")?.map_or_else(|| row.int("uploaded_at"), Ok)?;
        let mut told = 0;
        for moment in expiry_moments(not_before, not_after) {
            if moment.micros() > told_until && moment <= now {
                told += self.write(TELL_EXPIRY, values![id.clone(), moment.micros(), now.micros(), not_after.micros()]).await?;
            }
        }
        Ok(told)
    }
}

#[async_trait]
impl<DB: Dialect> Deliveries for SqlStore<DB> {
    async fn wake_deliveries(&self, now: Timestamp) -> Result<u64, StoreError> {
        // Mostly there is nothing to do, and writers wait for each other.
        let asleep = self.sql.rows(ASLEEP, values![now.micros(), BATCH]).await?;
        if asleep.is_empty() {
            return Ok(0);
        }
        let (mut tx, mut jobs) = (self.sql.begin_write().await?, Vec::new());
        for row in &asleep {
            let row = Reader::<DB>(row);
            let id = row.parsed("id", WebhookId::parse)?;
            let job = NewJob::deliver(id)?;
            let values = values![id.to_string(), job.id.clone(), row.text("job_id")?];
            if self.sql.execute(&mut tx, REPLACE_DELIVER_JOB, values).await? > 0 {
                jobs.push(job);
            }
        }
        if !jobs.is_empty() {
            self.sql.execute(&mut tx, PUSH_JOBS, values![given_rows(&jobs)?, DELIVER_QUEUE, 0_i64]).await?;
        }
        self.sql.commit(tx).await?;
        Ok(jobs.len() as u64)
    }

    async fn find_receiver(&self, id: WebhookId) -> Result<Option<Receiver>, StoreError> {
        self.sql.rows(FIND_RECEIVER, values![id.to_string()]).await?.first().map(|row| Reader::<DB>(row).receiver()).transpose()
    }

    async fn take_due(&self, id: WebhookId, limit: u32, lease: Duration, now: Timestamp) -> Result<Vec<Due>, StoreError> {
        let values = values![id.to_string(), now.micros(), i64::from(limit), now.plus(lease).micros()];
        self.sql.write_returning(TAKE_DUE, values).await?.iter().map(|row| Reader::<DB>(row).due()).collect()
    }

    async fn end_attempt(
        &self,
        webhook_id: WebhookId,
        due: &Due,
        attempt: Attempt,
        response_status: Option<u16>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (status, next) = match attempt {
            Attempt::Delivered => ("delivered", None),
            Attempt::Again(at) => ("pending", Some(at.micros())),
            Attempt::GivenUp | Attempt::Gone => ("failed", None),
        };
        let webhook = webhook_id.to_string();
        let mut tx = self.sql.begin_write().await?;
        let values = values![due.id.clone(), status, response_status.map(i64::from), next, i64::from(due.attempts)];
        if self.sql.execute(&mut tx, END_ATTEMPT, values).await? == 0 {
            return Ok(());
        }
        let disabled = match attempt {
            Attempt::Delivered => {
                self.sql.execute(&mut tx, FORGET_GIVEN_UP, values![webhook.clone()]).await?;
                None
            }
            Attempt::Again(_) => None,
            Attempt::GivenUp => {
                let rows = self.sql.fetch(&mut tx, COUNT_GIVEN_UP, values![webhook.clone()]).await?;
                let given_up = rows.first().map(|row| Reader::<DB>(row).count("given_up")).transpose()?.unwrap_or_default();
                (given_up >= GIVEN_UP_MAX).then(|| format!("{given_up} deliveries in a row were given up."))
            }
            Attempt::Gone => Some("The receiver answered 410 (Gone).".to_owned()),
        };
        if let Some(reason) = disabled {
            self.sql.execute(&mut tx, DISABLE_WEBHOOK, values![webhook.clone(), reason, now.micros()]).await?;
            self.sql.execute(&mut tx, GIVE_UP_PENDING, values![webhook]).await?;
        }
        self.sql.commit(tx).await
    }

    async fn tell_time(&self, now: Timestamp) -> Result<u64, StoreError> {
        let last_second = i64::try_from(LAST_SECOND.as_micros()).unwrap_or_default();
        let (mut told, mut after) = (0, String::new());
        loop {
            let values = values![after, now.plus(EXPIRING_WITHIN).micros(), last_second - 1, BATCH];
            let rows = self.sql.rows(NEAR_EXPIRY, values).await?;
            for row in &rows {
                told += self.sql.tell_expiry(row, now).await?;
            }
            match rows.last() {
                Some(last) if rows.len() >= usize::try_from(BATCH).unwrap_or_default() => after = Reader::<DB>(last).text("id")?,
                _ => break,
            }
        }
        loop {
            let stale = self.sql.write(TELL_STALE, values![now.minus(STALE_AFTER).micros(), now.micros(), BATCH]).await?;
            told += stale;
            if stale < BATCH.unsigned_abs() {
                return Ok(told);
            }
        }
    }

    async fn purge_deliveries(&self) -> Result<u64, StoreError> {
        self.sql.purge_batches(PURGE_DELIVERIES, i64::from(DELIVERIES_SHOWN)).await
    }
}
