//! ARI: which certificates to ask the issuers about, what they answered, and the events when their windows begin.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Reader, statements, values},
};
use crate::{
    ari::{ASK_AGAIN, RenewalInfo},
    clock::Timestamp,
    ids::CustomCertificateId,
    x509::certificate::{issued_by, leaf_details},
};

/// A certificate to ask the issuer about.
#[derive(Debug, Clone)]
pub struct Unasked {
    /// Its ID.
    pub id: CustomCertificateId,
    /// The fingerprint of its leaf.
    pub leaf: String,
    /// What the leaf says of its issuer, or `None` if that does not identify the certificate.
    pub issued_by: Option<crate::ari::IssuedBy>,
    /// Errors in a row.
    pub errors: u32,
    modified_at: i64,
    next_at: i64,
}

/// The result of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// No directory is configured for the issuer.
    NotAsked,
    /// It answered. The chosen time counts if the window is a new one.
    Answered(RenewalInfo, Timestamp),
    /// It did not answer, or its answer was of no use.
    Failed,
}

/// The part of the storage that is ARI. Each method is one transaction, as in [`super::Store`].
#[async_trait]
pub trait AriStore: Send + Sync {
    /// Takes up to `limit` valid certificates whose issuers are to be asked at `now`. Nobody else takes them before `until`.
    async fn take_unasked(&self, limit: u32, until: Timestamp, now: Timestamp) -> Result<Vec<Unasked>, StoreError>;

    /// Stores the result of a question and the time of the next one. It changes nothing if the certificate has another leaf by now.
    async fn end_asking(&self, unasked: &Unasked, asked: &Asked, next: Timestamp) -> Result<(), StoreError>;

    /// Makes certificates due that no issuer was asked about and whose next question is before this time: the settings may have changed. Changes
    /// one batch, and returns how many that were.
    async fn look_again(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Records windows that have begun, each once, and returns how many.
    async fn tell_renew_now(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// How far apart the clocks of two processes may be.
const CLOCKS_APART: Duration = Duration::from_hours(24);
/// Rows that one statement changes.
const BATCH: i64 = 500;

statements! {
    /// Up to `$2` certificates that are valid at `$1`, and are to be asked about then. A time after `$3` is one that no clock that was right wrote.
    FIND_UNASKED = "SELECT id, chain_pem, modified_at, ari_leaf, ari_next_at, ari_failures FROM custom_certificates \
        WHERE (ari_next_at IS NULL OR ari_next_at <= $1 OR ari_next_at > $3) AND not_after > $1 LIMIT $2";
    /// What is known of another leaf is forgotten.
    TAKE_UNASKED = "UPDATE custom_certificates SET ari_next_at = $4, ari_leaf = $5, \
        ari_failures = CASE WHEN ari_leaf = $5 THEN ari_failures ELSE 0 END, \
        ari_window_start = CASE WHEN ari_leaf = $5 THEN ari_window_start END, \
        ari_window_end = CASE WHEN ari_leaf = $5 THEN ari_window_end END, \
        renew_after = CASE WHEN ari_leaf = $5 THEN renew_after END, \
        renewal_explanation_url = CASE WHEN ari_leaf = $5 THEN renewal_explanation_url END, \
        renew_now_told_at = CASE WHEN ari_leaf = $5 THEN renew_now_told_at END \
        WHERE id = $1 AND modified_at = $2 AND COALESCE(ari_next_at, 0) = $3";
    END_ANSWERED = "UPDATE custom_certificates SET ari_next_at = $3, ari_failures = 0, renewal_explanation_url = $7, \
        renew_after = CASE WHEN ari_window_start = $4 AND ari_window_end = $5 THEN renew_after ELSE $6 END, \
        renew_now_told_at = CASE WHEN ari_window_start = $4 AND ari_window_end = $5 THEN renew_now_told_at END, \
        ari_window_start = $4, ari_window_end = $5 WHERE id = $1 AND ari_leaf = $2";
    END_FAILED = "UPDATE custom_certificates SET ari_next_at = $3, ari_failures = ari_failures + 1 WHERE id = $1 AND ari_leaf = $2";
    END_NOT_ASKED = "UPDATE custom_certificates SET ari_next_at = $3, ari_failures = 0 WHERE id = $1 AND ari_leaf = $2";
    LOOK_AGAIN = "UPDATE custom_certificates SET ari_next_at = NULL WHERE id IN (SELECT id FROM custom_certificates \
        WHERE ari_next_at < $1 AND ari_window_start IS NULL AND ari_failures = 0 ORDER BY id LIMIT $2) AND ari_window_start IS NULL";
    /// A trigger writes the event. There is none for a leaf that was replaced.
    TELL_RENEW_NOW = "UPDATE custom_certificates SET renew_now_told_at = $1 WHERE renew_now_told_at IS NULL AND id IN \
        (SELECT id FROM custom_certificates WHERE ari_window_start <= $1 AND renew_now_told_at IS NULL AND not_after > $1 \
        AND ari_leaf = fingerprint_sha256 AND described_at = modified_at ORDER BY id LIMIT $2)";
}

impl<DB: Dialect> Reader<'_, DB> {
    fn unasked(&self) -> Result<Unasked, StoreError> {
        let leaf = self.parsed("chain_pem", leaf_details)?.fingerprint_sha256;
        let is_known = self.optional_text("ari_leaf")?.as_deref() == Some(&leaf);
        Ok(Unasked {
            id: self.certificate_id()?,
            issued_by: issued_by(&self.text("chain_pem")?),
            errors: if is_known { self.count("ari_failures")? } else { 0 },
            leaf,
            modified_at: self.int("modified_at")?,
            next_at: self.optional_int("ari_next_at")?.unwrap_or_default(),
        })
    }
}

#[async_trait]
impl<DB: Dialect> AriStore for SqlStore<DB> {
    async fn take_unasked(&self, limit: u32, until: Timestamp, now: Timestamp) -> Result<Vec<Unasked>, StoreError> {
        let mut taken = Vec::new();
        let latest = now.plus(ASK_AGAIN.1).plus(CLOCKS_APART);
        for row in &self.sql.rows(FIND_UNASKED, values![now.micros(), i64::from(limit), latest.micros()]).await? {
            let unasked = match Reader::<DB>(row).unasked() {
                Ok(unasked) => unasked,
                // An unreadable row must not hold up the others.
                Err(error) => {
                    tracing::error!(%error, "the issuer of a certificate cannot be asked");
                    continue;
                }
            };
            let values = values![unasked.id.to_string(), unasked.modified_at, unasked.next_at, until.micros(), unasked.leaf.clone()];
            if self.sql.write(TAKE_UNASKED, values).await? > 0 {
                taken.push(unasked);
            }
        }
        Ok(taken)
    }

    async fn end_asking(&self, unasked: &Unasked, asked: &Asked, next: Timestamp) -> Result<(), StoreError> {
        let mut values = values![unasked.id.to_string(), unasked.leaf.clone(), next.micros()];
        let statement = match asked {
            Asked::NotAsked => END_NOT_ASKED,
            Asked::Failed => END_FAILED,
            Asked::Answered(info, moment) => {
                let (start, end) = info.window;
                values.extend(values![start.micros(), end.micros(), moment.micros(), info.explanation_url.clone()]);
                END_ANSWERED
            }
        };
        self.sql.write(statement, values).await.map(drop)
    }

    async fn look_again(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.sql.write(LOOK_AGAIN, values![before.micros(), BATCH]).await
    }

    async fn tell_renew_now(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut told = 0;
        loop {
            let batch = self.sql.write(TELL_RENEW_NOW, values![now.micros(), BATCH]).await?;
            told += batch;
            if batch < BATCH.unsigned_abs() {
                return Ok(told);
            }
        }
    }
}
