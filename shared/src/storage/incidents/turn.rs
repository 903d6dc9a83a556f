//! Turns: whoever runs a plan rekeys a batch of its custom CSRs in one transaction, as many as its schedule allows, and comes back.
//!
//! The plan's row has the schedule and who runs it, so that all workers together keep to it, and one of them goes on where another was killed.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    audit::{Actor, Via},
    clock::Timestamp,
    custom_csr::{CustomCsr, KeyType, Status},
    handover::NewHandover,
    ids::{CustomCertificateId, CustomCsrId, IncidentId},
    incident::{IncidentStatus, SkipReason},
    job::INCIDENT_QUEUE,
    storage::{
        Acceptance, Dialect, NewCustomCsr, StoreError,
        custom_csrs::{AcceptRequest, columns},
        engine::{Lent, Reader, Sql, given, given_ids, given_rows, statements, values},
        jobs::{NewJob, PUSH_JOBS},
    },
};

/// The most custom CSRs that one turn rekeys. Their scopes are locked meanwhile.
pub const TURN_MAX: usize = 32;
/// After this time without a turn, another runner may take the plan: this one was killed, or its database is away.
const LEASE: Duration = Duration::from_secs(3);
/// The most pending custom CSRs that a plan has: those of tenants wait behind them.
const PENDING_MAX: i64 = 500;
/// Until it is looked whether there are fewer.
const PENDING_WAIT: Duration = Duration::from_millis(200);
/// How far a schedule may lie behind: what is missed beyond is made later, not faster.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// A turn of a plan.
#[derive(Clone)]
pub struct Turn {
    /// The plan.
    pub incident_id: IncidentId,
    /// Who takes it: a word of its own for each job.
    pub runner: String,
    /// What the new custom CSRs get, [`TURN_MAX`] of them at most; what is left over is forgotten.
    pub successors: Vec<Successor>,
}

/// What a new custom CSR gets.
#[derive(Clone)]
pub struct Successor {
    /// Its ID.
    pub id: CustomCsrId,
    /// The link that is told with it, if somebody is told. The store says which certificate it renews.
    pub handover: Option<NewHandover>,
}

/// What a turn came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turned {
    /// The plan does not run: it is done, or stopped, or gone.
    Over,
    /// Another runner is at it.
    Held,
    /// These were rekeyed, if any were due.
    Went {
        /// The types of the keys that are to be made.
        rekeyed: Vec<KeyType>,
        /// When the next turn is due.
        wait: Duration,
    },
}

/// The plans that run, and those of them that got a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Woken {
    /// How many run.
    pub running: u64,
    /// How many got a job.
    pub jobs: u64,
}

/// The database's clock, in microseconds since the Unix epoch.
macro_rules! clock {
    (sqlite) => {
        "CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)"
    };
    (postgres) => {
        "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
    };
}

/// Holds plan `$1` for runner `$2`, for `$3` microseconds, if it runs and nobody else has it.
macro_rules! hold {
    ($db:ident) => {
        concat!(
            "UPDATE incidents SET runner = $2, runner_until = ",
            clock!($db),
            " + CAST($3 AS BIGINT) \
             WHERE id = $1 AND status = 'running' AND (runner = $2 OR runner_until <= ",
            clock!($db),
            ") \
             RETURNING started_by, pause, next_at, ",
            clock!($db),
            " AS now"
        )
    };
}

statements! {
    /// The plans that run. Nobody is at one that is `asleep`, and no job waits for it.
    RUNNING {
        sqlite: concat!(
            "SELECT id, job_id, CASE WHEN runner_until <= ", clock!(sqlite), " AND NOT EXISTS (SELECT 1 FROM Jobs \
             WHERE Jobs.id = incidents.job_id AND Jobs.status = 'Pending') THEN 1 ELSE 0 END AS asleep FROM incidents WHERE status = 'running'"
        ),
        postgres: concat!(
            "SELECT id, job_id, CAST(CASE WHEN runner_until <= ", clock!(postgres), " AND NOT EXISTS (SELECT 1 FROM apalis.jobs \
             WHERE jobs.id = incidents.job_id COLLATE \"default\" AND jobs.status = 'Pending') THEN 1 ELSE 0 END AS BIGINT) AS asleep \
             FROM incidents WHERE status = 'running'"
        ),
    };
    /// Unless someone else just did.
    REPLACE_INCIDENT_JOB = "UPDATE incidents SET job_id = $2 WHERE id = $1 AND job_id = $3";
    HOLD_INCIDENT { sqlite: hold!(sqlite), postgres: hold!(postgres), };
    INCIDENT_STATUS = "SELECT status FROM incidents WHERE id = $1";
    END_TURNS = "UPDATE incidents SET runner_until = 0 WHERE id = $1 AND runner = $2";
    /// The pending custom CSRs that plan `$1` made, counted up to `$2`.
    COUNT_MADE_PENDING = "SELECT COUNT(*) AS total FROM (SELECT id FROM custom_csrs WHERE status = 'pending' AND incident_id = $1 LIMIT $2) AS made";
    NEXT_PLANNED = "SELECT custom_csr_id AS id, earlier FROM incident_rekeys WHERE incident_id = $1 AND state = 'planned' \
        ORDER BY custom_csr_id LIMIT $2";
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
    /// Those of these scopes that somebody is told for.
    TOLD(scope TEXT) = "SELECT given.scope FROM ", " WHERE EXISTS (SELECT 1 FROM webhooks WHERE enabled = 1 \
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
    END_INCIDENT = "UPDATE incidents SET status = 'done', ended_at = $2 WHERE id = $1";
    SCHEDULE = "UPDATE incidents SET next_at = $2 WHERE id = $1";
}

/// What holds a plan.
struct Hold {
    started_by: String,
    /// By the database's clock, in microseconds, as all here.
    now: i64,
    pause: Option<i64>,
    next_at: i64,
}

impl Hold {
    /// How many rekeys are due, or how long none is.
    fn due(&self) -> Result<i64, Duration> {
        let Some(pause) = self.pause else { return Ok(i64::MAX) };
        match self.now.saturating_sub(self.next_at) {
            late @ 0.. => Ok(late / pause.max(1) + 1),
            early => Err(Duration::from_micros(early.unsigned_abs())),
        }
    }

    /// When the next rekey is due after so many.
    fn next_after(&self, rekeyed: usize) -> Option<i64> {
        let rekeyed = i64::try_from(rekeyed).unwrap_or(i64::MAX);
        self.pause.map(|pause| self.next_at.saturating_add(pause.saturating_mul(rekeyed)))
    }
}

/// What is known of a custom CSR of a plan when its turn comes.
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
    /// See [`super::Incidents::wake_incidents`].
    pub(super) async fn wake_incidents(&self) -> Result<Woken, StoreError> {
        // Mostly there is nothing to do, and writers wait for each other.
        let running = self.rows(RUNNING, values![]).await?;
        let mut woken = Woken { running: running.len() as u64, jobs: 0 };
        for row in &running {
            let row = Reader::<DB>(row);
            if row.int("asleep")? == 0 {
                continue;
            }
            let id = row.parsed("id", IncidentId::parse)?;
            let job = NewJob::incident(id)?;
            let mut tx = self.begin_write().await?;
            let values = values![id.to_string(), job.id.clone(), row.text("job_id")?];
            if self.execute(&mut tx, REPLACE_INCIDENT_JOB, values).await? > 0 {
                self.execute(&mut tx, PUSH_JOBS, values![given_rows(&[job])?, INCIDENT_QUEUE, 0_i64]).await?;
                self.commit(tx).await?;
                woken.jobs += 1;
            }
        }
        Ok(woken)
    }

    /// See [`super::Incidents::end_turns`].
    pub(super) async fn end_turns(&self, id: IncidentId, runner: &str) -> Result<(), StoreError> {
        self.write(END_TURNS, values![id.to_string(), runner]).await.map(drop)
    }

    /// See [`super::Incidents::take_turn`].
    pub(super) async fn take_turn(&self, turn: &Turn, now: Timestamp) -> Result<Turned, StoreError> {
        let id = turn.incident_id.to_string();
        let mut tx = self.begin_write().await?;
        let Some(hold) = self.hold_incident(&mut tx, turn).await? else {
            let rows = self.fetch(&mut tx, INCIDENT_STATUS, values![id]).await?;
            let status = rows.first().map(|row| Reader::<DB>(row).parsed("status", IncidentStatus::parse)).transpose()?;
            return Ok(if status == Some(IncidentStatus::Running) { Turned::Held } else { Turned::Over });
        };
        let due = match hold.due() {
            Ok(due) => due.min(i64::try_from(turn.successors.len()).unwrap_or(i64::MAX)).max(1),
            Err(wait) => return self.pass(tx, wait).await,
        };
        if self.total(&mut tx, COUNT_MADE_PENDING, values![id.clone(), PENDING_MAX]).await? >= PENDING_MAX {
            return self.pass(tx, PENDING_WAIT).await;
        }
        let planned = self.fetch(&mut tx, NEXT_PLANNED, values![id.clone(), due]).await?;
        if planned.is_empty() {
            self.execute(&mut tx, END_INCIDENT, values![id, now.micros()]).await?;
            self.commit(tx).await?;
            return Ok(Turned::Over);
        }
        let rekeyed = self.rekey_planned(&mut tx, turn, &hold, &planned, now).await?;
        let next_at = hold.next_after(rekeyed.len());
        if let Some(next_at) = next_at {
            self.execute(&mut tx, SCHEDULE, values![id, next_at]).await?;
        }
        self.commit(tx).await?;
        let wait = next_at.map_or(0, |next_at| next_at.saturating_sub(hold.now).max(0));
        Ok(Turned::Went { rekeyed, wait: Duration::from_micros(wait.unsigned_abs()) })
    }

    /// Ends a turn that does nothing but hold the plan.
    async fn pass(&self, tx: Lent<DB>, wait: Duration) -> Result<Turned, StoreError> {
        self.commit(tx).await?;
        Ok(Turned::Went { rekeyed: Vec::new(), wait })
    }

    async fn hold_incident(&self, tx: &mut Lent<DB>, turn: &Turn) -> Result<Option<Hold>, StoreError> {
        let lease = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
        let rows = self.fetch(tx, HOLD_INCIDENT, values![turn.incident_id.to_string(), turn.runner.clone(), lease]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let row = Reader::<DB>(row);
        let (now, behind) = (row.int("now")?, i64::try_from(BEHIND_MAX.as_micros()).unwrap_or_default());
        let next_at = row.optional_int("next_at")?.unwrap_or(now).max(now.saturating_sub(behind));
        Ok(Some(Hold { started_by: row.text("started_by")?, now, pause: row.optional_int("pause")?, next_at }))
    }

    /// Rekeys what is to be rekeyed of these, and writes down what became of each; the types of the keys that are to be made.
    async fn rekey_planned(
        &self,
        tx: &mut Lent<DB>,
        turn: &Turn,
        hold: &Hold,
        planned: &[DB::Row],
        now: Timestamp,
    ) -> Result<Vec<KeyType>, StoreError> {
        let incident = turn.incident_id.to_string();
        let actor = Actor { who: hold.started_by.clone(), via: Via::Cli, from: "local".to_owned(), request_id: Some(incident.clone()) };
        let rows = planned.iter().map(|row| Ok(IdRow { id: Reader::<DB>(row).text("id")? })).collect::<Result<Vec<_>, StoreError>>()?;
        let ids = given_rows(&rows)?;
        let mut found = HashMap::new();
        for row in &self.fetch(tx, LOCK_PLANNED, values![ids.clone()]).await? {
            let csr = Reader::<DB>(row).custom_csr()?;
            found.insert(csr.id, csr);
        }
        // Only now: what others did before this transaction had the locks is seen.
        let standing = self.standing(tx, &ids, &incident).await?;
        let (mut ended, mut wanted) = (Vec::new(), Vec::new());
        let mut successors = turn.successors.iter();
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
        let requests: Vec<_> = wanted.iter().map(|(old, _, successor)| request(old, successor.id, &actor, now)).collect();
        let decisions = self.accept_in_place(tx, &requests).await?;
        let told = self.told(tx, &wanted).await?;
        let (mut places, mut made, mut key_types) = (Vec::new(), Vec::new(), Vec::new());
        for ((old, certificate_id, successor), decision) in wanted.iter().zip(decisions) {
            let Acceptance::Accepted(csr) = decision else {
                ended.push(EndRow::skipped(old.id, SkipReason::NotGranted));
                continue;
            };
            let scope = csr.scope.to_string();
            let handover = successor.handover.as_ref().filter(|_| told.contains(&scope));
            if let Some(handover) = handover {
                let handover = NewHandover { custom_csr_id: csr.id, replaces: Some(*certificate_id), ..handover.clone() };
                self.insert_handover(tx, &csr.scope, &handover, &actor, now).await?;
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

    /// The scopes in which somebody is told of rekeys: elsewhere nobody would get a link.
    async fn told(&self, tx: &mut Lent<DB>, wanted: &[(CustomCsr, CustomCertificateId, &Successor)]) -> Result<Vec<String>, StoreError> {
        if wanted.iter().all(|(_, _, successor)| successor.handover.is_none()) {
            return Ok(Vec::new());
        }
        let scopes: Vec<_> = wanted.iter().map(|(old, _, _)| ScopeRow { scope: old.scope.to_string() }).collect();
        let rows = self.fetch(tx, TOLD, values![given_rows(&scopes)?]).await?;
        rows.iter().map(|row| Reader::<DB>(row).text("scope")).collect()
    }
}

/// What is to be rekeyed, with the certificate that it is for; or why it is not.
fn judge(old: Option<CustomCsr>, standing: Option<&Standing>, earlier: i64) -> Result<(CustomCsr, CustomCertificateId), SkipReason> {
    let (Some(old), Some(standing)) = (old.filter(|old| old.status == Status::Active), standing) else { return Err(SkipReason::Deleted) };
    if standing.made > earlier {
        return Err(SkipReason::RekeyedByOther);
    }
    standing.certificate_id.map(|certificate_id| (old, certificate_id)).ok_or(SkipReason::Unused)
}

/// The same subject and names, and a new key: what POST …/rekey asks for without a body.
fn request(old: &CustomCsr, id: CustomCsrId, actor: &Actor, now: Timestamp) -> AcceptRequest {
    let new = NewCustomCsr {
        id,
        scope: old.scope.clone(),
        request: old.request.clone(),
        idempotency_key: None,
        replaces: Some(old.id),
        max_pending: u32::MAX,
    };
    AcceptRequest { new, actor: actor.clone(), now, traceparent: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(now: i64, pause: Option<i64>, next_at: i64) -> Hold {
        Hold { started_by: String::new(), now, pause, next_at }
    }

    #[test]
    fn as_many_are_due_as_moments_have_come_and_none_before() {
        assert_eq!(hold(1_000, Some(100), 1_000).due(), Ok(1));
        assert_eq!(hold(1_250, Some(100), 1_000).due(), Ok(3));
        assert_eq!(hold(900, Some(100), 1_000).due(), Err(Duration::from_micros(100)));
        assert_eq!(hold(900, None, 1_000).due(), Ok(i64::MAX));
        assert_eq!(hold(1_250, Some(100), 1_000).next_after(3), Some(1_300));
        assert_eq!(hold(1_250, None, 1_000).next_after(3), None);
    }
}
