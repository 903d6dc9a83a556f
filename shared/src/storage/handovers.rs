//! Hand-over links: made, listed, revoked and followed.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Dialect, SqlStore, StoreError,
    engine::{Lent, Reader, Sql, statements, values},
};
use crate::{
    audit::{Action, Actor, NewEntry},
    clock::Timestamp,
    custom_csr::Status,
    handover::{Handover, NewHandover, Secret},
    ids::{CustomCertificateId, CustomCsrId, HandoverId, Scope},
};

/// What became of an attempt to make a hand-over link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoverCreation {
    /// It was made.
    Created,
    /// There is no such custom CSR (1419).
    NotFound,
    /// The scope is not granted custom CSRs (1404): it could not store a certificate.
    NotGranted,
    /// The custom CSR has no CSR to show (1474).
    NotActive(Status),
    /// The custom CSR has [`MAX_HANDOVERS_OF_CSR`] that are still open.
    TooMany,
}

/// How many hand-over links of one custom CSR may be open at a time. Links of events are made even beyond it.
pub const MAX_HANDOVERS_OF_CSR: u32 = 20;
/// How many hand-over links of one custom CSR are kept: all open ones, and the newest of those that have ended.
pub const HANDOVERS_KEPT: u32 = 100;
/// How long a hand-over link is kept after its expiry.
pub const HANDOVER_KEPT_AFTER: Duration = Duration::from_hours(24 * 90);

/// The part of the storage for hand-over links. Each method is one transaction, as in [`super::Store`]. Links are deleted with their custom CSR.
#[async_trait]
pub trait Handovers: Send + Sync {
    /// Makes a link to an active custom CSR of this scope.
    async fn create_handover(
        &self,
        scope: &Scope,
        new: &NewHandover,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<HandoverCreation, StoreError>;

    /// The links to a custom CSR of this scope, the newest first.
    async fn list_handovers(&self, scope: &Scope, custom_csr_id: CustomCsrId) -> Result<Vec<Handover>, StoreError>;

    /// Revokes a link, or leaves it as it is if it has already ended. Returns false if there is no such link.
    async fn revoke_handover(
        &self,
        scope: &Scope,
        custom_csr_id: CustomCsrId,
        id: HandoverId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// The link with this secret, and the scope of its custom CSR. The link may have ended.
    async fn find_handover(&self, secret: &Secret) -> Result<Option<(Handover, Scope)>, StoreError>;

    /// Records the first time that an open link was opened.
    async fn open_handover(&self, id: HandoverId, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<(), StoreError>;
}

macro_rules! columns {
    () => {
        "id, scope, custom_csr_id, replaces, note, created_at, expires_at, opened_at, used_at, revoked_at"
    };
}

statements! {
    /// Keeps the custom CSR from being deleted until the transaction ends.
    LOCK_HANDED_OVER = "UPDATE custom_csrs SET updated_at = updated_at WHERE id = $1 AND scope = $2 RETURNING status";
    COUNT_OPEN_HANDOVERS = "SELECT COUNT(*) AS total FROM handovers \
        WHERE custom_csr_id = $1 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > $2";
    INSERT_HANDOVER = "INSERT INTO handovers (id, custom_csr_id, scope, replaces, secret_sha256, note, created_at, expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    /// Deletes the links of custom CSR `$1` that have ended at `$2`, except for the `$3` newest.
    FORGET_HANDOVERS = "DELETE FROM handovers WHERE custom_csr_id = $1 AND (used_at IS NOT NULL OR revoked_at IS NOT NULL OR expires_at <= $2) \
        AND id NOT IN (SELECT id FROM handovers WHERE custom_csr_id = $1 ORDER BY created_at DESC, id DESC LIMIT $3)";
    /// Deletes up to `$2` links that expired before `$1`.
    pub(super) PURGE_HANDOVERS = "DELETE FROM handovers WHERE id IN (SELECT id FROM handovers WHERE expires_at < $1 LIMIT $2)";
    LIST_HANDOVERS = concat!(
        "SELECT ", columns!(), " FROM handovers WHERE custom_csr_id = $1 AND scope = $2 ORDER BY created_at DESC, id DESC"
    );
    REVOKE_HANDOVER = "UPDATE handovers SET revoked_at = $4 \
        WHERE id = $1 AND custom_csr_id = $2 AND scope = $3 AND used_at IS NULL AND revoked_at IS NULL";
    /// Ends the link that was told with the renewal of certificate `$1`, if it is open at `$2`.
    REVOKE_HANDOVER_OF_RENEWAL = "UPDATE handovers SET revoked_at = $2 \
        WHERE id = (SELECT renewal_handover_id FROM custom_certificates WHERE id = $1) \
        AND used_at IS NULL AND revoked_at IS NULL AND expires_at > $2 RETURNING id, scope";
    FIND_HANDOVER_OF_CSR = "SELECT id FROM handovers WHERE id = $1 AND custom_csr_id = $2 AND scope = $3";
    FIND_HANDOVER = concat!("SELECT ", columns!(), " FROM handovers WHERE secret_sha256 = $1");
    OPEN_HANDOVER = "UPDATE handovers SET opened_at = $2 WHERE id = $1 AND opened_at IS NULL AND used_at IS NULL AND revoked_at IS NULL";
    /// Of two certificates that come at the same time, one uses the link.
    USE_HANDOVER = "UPDATE handovers SET used_at = $2 WHERE id = $1 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > $2 RETURNING scope";
}

impl<DB: Dialect> Reader<'_, DB> {
    fn handover(&self) -> Result<Handover, StoreError> {
        let time = |column| Ok::<_, StoreError>(self.optional_int(column)?.map(Timestamp::from_micros));
        Ok(Handover {
            id: self.parsed("id", HandoverId::parse)?,
            custom_csr_id: self.parsed("custom_csr_id", CustomCsrId::parse)?,
            replaces: self.optional("replaces", CustomCertificateId::parse)?,
            note: self.optional_text("note")?,
            created_at: Timestamp::from_micros(self.int("created_at")?),
            expires_at: Timestamp::from_micros(self.int("expires_at")?),
            opened_at: time("opened_at")?,
            used_at: time("used_at")?,
            revoked_at: time("revoked_at")?,
        })
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Makes a link within a transaction, which holds the custom CSR: an active one of this scope.
    pub(in crate::storage) async fn insert_handover(
        &self,
        tx: &mut Lent<DB>,
        scope: &Scope,
        new: &NewHandover,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (csr, sha256) = (new.custom_csr_id.to_string(), new.secret.sha256().to_vec());
        let replaces = new.replaces.map(|id| id.to_string());
        let mut values = values![new.id.to_string(), csr.clone(), scope.to_string(), replaces, sha256, new.note.clone()];
        values.extend(values![now.micros(), new.expires_at.micros()]);
        self.execute(tx, INSERT_HANDOVER, values).await?;
        // Making and revoking links must not fill the table.
        self.execute(tx, FORGET_HANDOVERS, values![csr, now.micros(), i64::from(HANDOVERS_KEPT)]).await?;
        self.record(tx, &NewEntry::handover(Action::HandoverCreate, new.id, scope), actor, now).await
    }

    /// Ends a link by the certificate that comes through it; false if it is over already. The certificate of a zone may use an account's custom
    /// CSR: the audit entry is in the scope of the link, as that of its begin is.
    pub(in crate::storage) async fn use_handover(
        &self,
        tx: &mut Lent<DB>,
        id: HandoverId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let used = self.fetch(tx, USE_HANDOVER, values![id.to_string(), now.micros()]).await?;
        let Some(row) = used.first() else { return Ok(false) };
        let scope = Reader::<DB>(row).scope()?;
        self.record(tx, &NewEntry::handover(Action::HandoverUse, id, &scope), actor, now).await?;
        Ok(true)
    }

    /// Revokes the link to a renewal that was done without it: nobody is to do it once more.
    pub(in crate::storage) async fn revoke_handover_of_renewal(
        &self,
        tx: &mut Lent<DB>,
        certificate: CustomCertificateId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let revoked = self.fetch(tx, REVOKE_HANDOVER_OF_RENEWAL, values![certificate.to_string(), now.micros()]).await?;
        let Some(row) = revoked.first() else { return Ok(()) };
        let row = Reader::<DB>(row);
        let (id, scope) = (row.parsed("id", HandoverId::parse)?, row.scope()?);
        self.record(tx, &NewEntry::handover(Action::HandoverRevoke, id, &scope), actor, now).await
    }
}

#[async_trait]
impl<DB: Dialect> Handovers for SqlStore<DB> {
    async fn create_handover(
        &self,
        scope: &Scope,
        new: &NewHandover,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<HandoverCreation, StoreError> {
        let csr = new.custom_csr_id.to_string();
        let mut tx = self.sql.begin_write().await?;
        let locked = self.sql.fetch(&mut tx, LOCK_HANDED_OVER, values![csr.clone(), scope.to_string()]).await?;
        let Some(row) = locked.first() else { return Ok(HandoverCreation::NotFound) };
        let status = Reader::<DB>(row).parsed("status", Status::parse)?;
        if status != Status::Active {
            return Ok(HandoverCreation::NotActive(status));
        }
        if !self.sql.grant_of(&mut tx, scope).await?.is_some_and(|grant| grant.granted) {
            return Ok(HandoverCreation::NotGranted);
        }
        let open = self.sql.fetch(&mut tx, COUNT_OPEN_HANDOVERS, values![csr, now.micros()]).await?;
        let open = open.first().map(|row| Reader::<DB>(row).count("total")).transpose()?.unwrap_or_default();
        if open >= MAX_HANDOVERS_OF_CSR {
            return Ok(HandoverCreation::TooMany);
        }
        self.sql.insert_handover(&mut tx, scope, new, actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(HandoverCreation::Created)
    }

    async fn list_handovers(&self, scope: &Scope, custom_csr_id: CustomCsrId) -> Result<Vec<Handover>, StoreError> {
        let rows = self.sql.rows(LIST_HANDOVERS, values![custom_csr_id.to_string(), scope.to_string()]).await?;
        rows.iter().map(|row| Reader::<DB>(row).handover()).collect()
    }

    async fn revoke_handover(
        &self,
        scope: &Scope,
        custom_csr_id: CustomCsrId,
        id: HandoverId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let key = values![id.to_string(), custom_csr_id.to_string(), scope.to_string()];
        let mut tx = self.sql.begin_write().await?;
        let mut values = key.clone();
        values.extend(values![now.micros()]);
        if self.sql.execute(&mut tx, REVOKE_HANDOVER, values).await? == 0 {
            return Ok(!self.sql.fetch(&mut tx, FIND_HANDOVER_OF_CSR, key).await?.is_empty());
        }
        self.sql.record(&mut tx, &NewEntry::handover(Action::HandoverRevoke, id, scope), actor, now).await?;
        self.sql.commit(tx).await?;
        Ok(true)
    }

    async fn find_handover(&self, secret: &Secret) -> Result<Option<(Handover, Scope)>, StoreError> {
        let rows = self.sql.rows(FIND_HANDOVER, values![secret.sha256().to_vec()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let row = Reader::<DB>(row);
        Ok(Some((row.handover()?, row.scope()?)))
    }

    async fn open_handover(&self, id: HandoverId, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.sql.begin_write().await?;
        if self.sql.execute(&mut tx, OPEN_HANDOVER, values![id.to_string(), now.micros()]).await? == 0 {
            return Ok(());
        }
        self.sql.record(&mut tx, &NewEntry::handover(Action::HandoverOpen, id, scope), actor, now).await?;
        self.sql.commit(tx).await
    }
}
