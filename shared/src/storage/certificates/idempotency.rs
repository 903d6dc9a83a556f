//! Which uploads came with an Idempotency-Key, so that a repeated one stores nothing more.

use super::{CertificateRefusal, NewCertificate, Repeat};
use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, Scope},
    storage::{
        Dialect, IDEMPOTENCY_KEY_LIFE, IDEMPOTENCY_KEYS_MAX, IdempotencyKey, StoreError,
        engine::{Lent, Reader, Sql, statements, values},
    },
};

statements! {
    /// What key `$2` of scope `$1` made, unless that was before `$3`.
    pub(super) FIND_KEY = "SELECT body_sha256, custom_certificate_id FROM idempotency_keys \
        WHERE scope = $1 AND key_sha256 = $2 AND created_at >= $3";
    /// Remembers a key, or takes over a record from before `$7`, which is too old to count.
    pub(super) CLAIM_KEY = "INSERT INTO idempotency_keys \
        (scope, key_sha256, body_sha256, custom_csr_id, custom_certificate_id, created_at) VALUES ($1, $2, $3, $4, $5, $6) \
        ON CONFLICT (scope, key_sha256) DO UPDATE SET body_sha256 = excluded.body_sha256, custom_csr_id = excluded.custom_csr_id, \
        custom_certificate_id = excluded.custom_certificate_id, created_at = excluded.created_at WHERE idempotency_keys.created_at < $7";
    /// The remembered keys of a scope, counted up to `$2`.
    pub(super) COUNT_KEYS = "SELECT COUNT(*) AS total FROM (SELECT key_sha256 FROM idempotency_keys WHERE scope = $1 LIMIT $2) AS remembered";
}

/// Records from before are too old to count.
fn oldest(now: Timestamp) -> i64 {
    now.minus(IDEMPOTENCY_KEY_LIFE).micros()
}

impl<DB: Dialect> Sql<DB> {
    /// See [`super::CertificateStore::find_upload`].
    pub(super) async fn find_upload(&self, zone: &Scope, key: &IdempotencyKey, now: Timestamp) -> Result<Option<Repeat>, StoreError> {
        let rows = self.rows(FIND_KEY, values![zone.to_string(), key.key_sha256.clone(), oldest(now)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let row = Reader::<DB>(row);
        let certificate = row.optional("custom_certificate_id", CustomCertificateId::parse)?;
        let is_same = row.blob("body_sha256")? == key.body_sha256;
        Ok(Some(certificate.filter(|_| is_same).map_or(Repeat::KeyReused, Repeat::Replayed)))
    }

    /// Remembers the key of a new certificate, if it has one, or says why not. Nobody else has the key until the transaction ends.
    pub(super) async fn claim_key(
        &self,
        tx: &mut Lent<DB>,
        new: &NewCertificate,
        now: Timestamp,
    ) -> Result<Option<CertificateRefusal>, StoreError> {
        let Some(key) = &new.idempotency_key else { return Ok(None) };
        let zone = new.zone.to_string();
        let most = i64::from(IDEMPOTENCY_KEYS_MAX);
        if self.total(tx, COUNT_KEYS, values![zone.clone(), most]).await? >= most {
            return Ok(Some(CertificateRefusal::TooManyKeys));
        }
        let values = values![
            zone,
            key.key_sha256.clone(),
            key.body_sha256.clone(),
            new.chain.custom_csr_id.to_string(),
            new.id.to_string(),
            now.micros(),
            oldest(now),
        ];
        let is_claimed = self.execute(tx, CLAIM_KEY, values).await? > 0;
        Ok((!is_claimed).then_some(CertificateRefusal::KeyTaken))
    }
}
