//! Rekeys a batch of a plan's custom CSRs in one transaction, and records what became of each.

use std::collections::{BTreeMap, HashMap};

use crate::{
    audit::Actor,
    clock::Timestamp,
    custom_csr::{CustomCsr, KeyType, Status},
    handover::NewHandover,
    ids::{CustomCertificateId, CustomCsrId, IncidentId},
    incident::SkipReason,
    storage::{
        Acceptance, Dialect, NewCustomCsr, StoreError,
        custom_csrs::{AcceptRequest, columns},
        engine::{Lent, Reader, Sql, given, given_ids, given_rows, statements, values},
    },
};

/// What a new custom CSR gets.
#[derive(Clone)]
pub struct Successor {
    /// Its ID.
    pub id: CustomCsrId,
    /// The link for its event, if anybody receives that. The store sets the certificate that it renews.
    pub handover: Option<NewHandover>,
}

statements! {
    /// Keeps custom CSRs from being deleted, and from being rekeyed by another plan, until the transaction ends.
    LOCK_PLANNED {
        sqlite: concat!("SELECT ", columns!(), ", CAST(NULL AS TEXT) AS certificate_ids FROM custom_csrs \
            WHERE id IN (SELECT given.id FROM ", given!(sqlite id TEXT), ")"),
        postgres: concat!("SELECT ", columns!(), ", CAST(NULL AS TEXT) AS certificate_ids FROM custom_csrs \
            WHERE id = ANY (", given_ids!(), ") ORDER BY id FOR NO KEY UPDATE"),
    };
    /// How often plans rekeyed these custom CSRs, and the first certificate of plan `$2` that still uses each.
    STANDING(id TEXT) = "SELECT given.id, (SELECT COUNT(*) FROM incident_rekeys AS made \
        WHERE made.custom_csr_id = given.id AND made.new_custom_csr_id IS NOT NULL) AS made, \
        (SELECT MIN(used.id) FROM incident_certificates AS planned JOIN custom_certificates AS used \
        ON used.id = planned.certificate_id AND used.custom_csr_id = planned.custom_csr_id \
        WHERE planned.incident_id = $2 AND planned.custom_csr_id = given.id) AS certificate_id FROM ", "";
    /// The scopes that have a webhook for the event.
    SCOPES_WITH_WEBHOOK(scope TEXT) = "SELECT given.scope FROM ", " WHERE EXISTS (SELECT 1 FROM webhooks WHERE enabled = 1 \
        AND (webhooks.scope = given.scope OR webhooks.scope = \
        (SELECT 'accounts/' || scopes.account_id FROM scopes WHERE scopes.scope = given.scope)) \
        AND (events LIKE '%\"*\"%' OR events LIKE '%\"custom_csr.incident_rekeyed\"%'))";
    MARK_MADE(id TEXT) = "UPDATE custom_csrs SET incident_id = $2 FROM ", " WHERE custom_csrs.id = given.id";
    /// The old one has a place in the quota of its own, unless it shares one already. (`WHERE` tells SQLite that `ON` begins no join.)
    BEGIN_SHARING(old TEXT, scope TEXT) = "INSERT INTO quota_places (custom_csr_id, scope, place) \
        SELECT given.old, given.scope, given.old FROM ", " WHERE TRUE ON CONFLICT (custom_csr_id) DO NOTHING";
    SHARE_PLACE(old TEXT, new TEXT, scope TEXT) = "INSERT INTO quota_places (custom_csr_id, scope, place) \
        SELECT given.new, given.scope, shared.place FROM ", " JOIN quota_places AS shared ON shared.custom_csr_id = given.old";
    COUNT_BESIDE(scope TEXT, beside BIGINT) = "UPDATE scopes SET beside_quota = beside_quota + given.beside FROM ",
        " WHERE scopes.scope = given.scope";
    END_PLANNED(id TEXT, state TEXT, reason TEXT, new TEXT, handover TEXT, at BIGINT) = "UPDATE incident_rekeys SET state = given.state, \
        reason = given.reason, new_custom_csr_id = given.new, handover_id = given.handover, rekeyed_at = given.at FROM ",
        " WHERE incident_rekeys.incident_id = $2 AND incident_rekeys.custom_csr_id = given.id AND incident_rekeys.state = 'planned'";
}

/// The state of a custom CSR of a plan when its turn comes.
struct Standing {
    made: i64,
    certificate_id: Option<CustomCertificateId>,
}

#[derive(serde::Serialize)]
struct IdRow {
    id: String,
}

#[derive(serde::Serialize)]
struct ScopeRow {
    scope: String,
}

#[derive(serde::Serialize)]
struct BesideRow {
    scope: String,
    beside: i64,
}

#[derive(serde::Serialize)]
struct PlaceRow {
    old: String,
    new: String,
    scope: String,
}

#[derive(serde::Serialize)]
struct EndRow {
    id: String,
    state: &'static str,
    reason: Option<&'static str>,
    new: Option<String>,
    handover: Option<String>,
    at: Option<i64>,
}

impl EndRow {
    fn skipped(id: CustomCsrId, reason: SkipReason) -> Self {
        Self { id: id.to_string(), state: "skipped", reason: Some(reason.as_str()), new: None, handover: None, at: None }
    }
}

impl<DB: Dialect> Sql<DB> {
    /// Rekeys those that are to be rekeyed, and records what became of each. Returns the types of the keys to make.
    pub(super) async fn rekey_planned(
        &self,
        tx: &mut Lent<DB>,
        incident_id: IncidentId,
        planned: &[DB::Row],
        successors: &[Successor],
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Vec<KeyType>, StoreError> {
        let incident = incident_id.to_string();
        let rows = planned.iter().map(|row| Ok(IdRow { id: Reader::<DB>(row).text("id")? })).collect::<Result<Vec<_>, StoreError>>()?;
        let ids = given_rows(&rows)?;
        let mut found = HashMap::new();
        for row in &self.fetch(tx, LOCK_PLANNED, values![ids.clone()]).await? {
            let csr = Reader::<DB>(row).custom_csr()?;
            found.insert(csr.id, csr);
        }
        // Only now, with the locks: so it sees what others did before.
        let standing = self.standing(tx, &ids, &incident).await?;
        let (mut ended, mut wanted) = (Vec::new(), Vec::new());
        let mut successors = successors.iter();
        for row in planned {
            let row = Reader::<DB>(row);
            let (id, earlier) = (row.custom_csr_id()?, row.int("earlier")?);
            match judge(found.remove(&id), standing.get(&id), earlier) {
                Err(reason) => ended.push(EndRow::skipped(id, reason)),
                Ok((old, certificate_id)) => {
                    let Some(successor) = successors.next() else { break };
                    wanted.push((old, certificate_id, successor));
                }
            }
        }
        let requests: Vec<_> = wanted.iter().map(|(old, _, successor)| request(old, successor.id, actor, now)).collect();
        let decisions = self.accept_in_place(tx, &requests).await?;
        let receiving = self.scopes_with_webhook(tx, &wanted).await?;
        let (mut places, mut made, mut key_types) = (Vec::new(), Vec::new(), Vec::new());
        for ((old, certificate_id, successor), decision) in wanted.iter().zip(decisions) {
            let Acceptance::Accepted(accepted) = decision else {
                ended.push(EndRow::skipped(old.id, SkipReason::NotGranted));
                continue;
            };
            let Some(csr) = accepted.into_iter().next() else { continue };
            let scope = csr.scope.to_string();
            let handover = successor.handover.as_ref().filter(|_| receiving.contains(&scope));
            if let Some(handover) = handover {
                let handover = NewHandover { custom_csr_id: csr.id, replaces: Some(*certificate_id), ..handover.clone() };
                self.insert_handover(tx, &csr.scope, &handover, actor, now).await?;
            }
            ended.push(EndRow {
                id: old.id.to_string(),
                state: "rekeyed",
                reason: None,
                new: Some(csr.id.to_string()),
                handover: handover.map(|handover| handover.id.to_string()),
                at: Some(now.micros()),
            });
            key_types.push(csr.request.key_type);
            made.push(IdRow { id: csr.id.to_string() });
            places.push(PlaceRow { old: old.id.to_string(), new: csr.id.to_string(), scope });
        }
        if !made.is_empty() {
            self.execute(tx, MARK_MADE, values![given_rows(&made)?, incident.clone()]).await?;
            let mut beside = BTreeMap::<_, i64>::new();
            for place in &places {
                *beside.entry(place.scope.clone()).or_default() += 1;
            }
            let beside: Vec<_> = beside.into_iter().map(|(scope, beside)| BesideRow { scope, beside }).collect();
            self.execute(tx, COUNT_BESIDE, values![given_rows(&beside)?]).await?;
            let places = given_rows(&places)?;
            self.execute(tx, BEGIN_SHARING, values![places.clone()]).await?;
            self.execute(tx, SHARE_PLACE, values![places]).await?;
        }
        let written = self.execute(tx, END_PLANNED, values![given_rows(&ended)?, incident]).await?;
        if usize::try_from(written) != Ok(ended.len()) {
            return Err(StoreError::Unavailable("a custom CSR of the plan was forgotten just now".to_owned()));
        }
        Ok(key_types)
    }

    async fn standing(&self, tx: &mut Lent<DB>, ids: &str, incident: &str) -> Result<HashMap<CustomCsrId, Standing>, StoreError> {
        let rows = self.fetch(tx, STANDING, values![ids, incident]).await?;
        let standing = rows.iter().map(|row| {
            let row = Reader::<DB>(row);
            let certificate_id = row.optional("certificate_id", CustomCertificateId::parse)?;
            Ok((row.custom_csr_id()?, Standing { made: row.int("made")?, certificate_id }))
        });
        standing.collect()
    }

    /// The scopes with a webhook for rekeys: in others, nobody would receive a link.
    async fn scopes_with_webhook(
        &self,
        tx: &mut Lent<DB>,
        wanted: &[(CustomCsr, CustomCertificateId, &Successor)],
    ) -> Result<Vec<String>, StoreError> {
        if wanted.iter().all(|(_, _, successor)| successor.handover.is_none()) {
            return Ok(Vec::new());
        }
        let scopes: Vec<_> = wanted.iter().map(|(old, _, _)| ScopeRow { scope: old.scope.to_string() }).collect();
        let rows = self.fetch(tx, SCOPES_WITH_WEBHOOK, values![given_rows(&scopes)?]).await?;
        rows.iter().map(|row| Reader::<DB>(row).text("scope")).collect()
    }
}

/// The custom CSR to rekey and the certificate that it is for, or why it is skipped.
fn judge(old: Option<CustomCsr>, standing: Option<&Standing>, earlier: i64) -> Result<(CustomCsr, CustomCertificateId), SkipReason> {
    let (Some(old), Some(standing)) = (old.filter(|old| old.status == Status::Active), standing) else { return Err(SkipReason::Deleted) };
    if standing.made > earlier {
        return Err(SkipReason::RekeyedByOther);
    }
    standing.certificate_id.map(|certificate_id| (old, certificate_id)).ok_or(SkipReason::Unused)
}

/// The same subject and names with a new key, as POST …/rekey without a body.
fn request(old: &CustomCsr, id: CustomCsrId, actor: &Actor, now: Timestamp) -> AcceptRequest {
    let new = NewCustomCsr {
        id,
        scope: old.scope.clone(),
        request: old.request.clone(),
        idempotency_key: None,
        replaces: Some(old.id),
        set_id: old.set_id,
        max_pending: u32::MAX,
    };
    AcceptRequest { first: new, others: Vec::new(), actor: actor.clone(), now, traceparent: None }
}
