//! Incidents: plans rekey each of their custom CSRs once at most, at their pace, whoever takes the turns.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    certificates::{active, certificate, chain, tomorrow},
    database, generated, granted,
    hidden::check_counts,
    webhooks::{told, webhook},
};
use crate::{
    audit::{Entry, Via},
    clock::Timestamp,
    custom_csr::{CustomCsr, Status},
    events,
    handover::{NewHandover, Secret},
    ids::{CustomCertificateId, CustomCsrId, HandoverId, IncidentId, Scope},
    incident::{IncidentStatus, Progress, Rekey},
    storage::{AuditQuery, Deletion, NewIncident, PlannedCertificate, Restoration, Store, Successor, TURN_MAX, Turn, Turned, Woken},
    testing::{account, actor, now, zone},
};

async fn uploaded(store: &dyn Store, zone: &Scope, csr: CustomCsrId, spki: u8, not_after: Timestamp) -> CustomCertificateId {
    let new = certificate(zone, chain(csr, spki, not_after));
    assert_eq!(store.accept_certificate(&new, &actor(), now()).await.unwrap(), None);
    new.id
}

/// So many custom CSRs with a certificate each.
async fn used(store: &dyn Store, zone: &Scope, count: u8) -> Vec<CustomCsrId> {
    let mut ids = Vec::new();
    for spki in 1..=count {
        let id = active(store, zone, spki).await;
        uploaded(store, zone, id, spki, tomorrow()).await;
        ids.push(id);
    }
    ids
}

/// A plan of all certificates that there are.
async fn plan(store: &dyn Store) -> IncidentId {
    let candidates = store.list_candidates(None, 1_000, now()).await.unwrap();
    let certificates = candidates.into_iter().map(|candidate| PlannedCertificate {
        id: candidate.id,
        zone: candidate.zone,
        custom_csr_id: candidate.custom_csr_id,
        scope: candidate.scope,
    });
    let new = NewIncident { id: IncidentId::new(now()), filters: json!({ "host": "*" }), certificates: certificates.collect() };
    store.create_incident(&new, &actor(), now()).await.unwrap();
    new.id
}

async fn started(store: &dyn Store, id: IncidentId, pause: Option<Duration>) -> IncidentId {
    assert!(store.start_incident(id, pause, &operator(), now()).await.unwrap().is_some());
    id
}

fn operator() -> crate::audit::Actor {
    crate::audit::Actor { who: "os:root".into(), via: Via::Cli, from: "local".into(), request_id: None }
}

fn handover(id: CustomCsrId) -> NewHandover {
    let expires_at = now().plus(Duration::from_hours(1));
    NewHandover {
        id: HandoverId::new(now()),
        custom_csr_id: id,
        replaces: None,
        secret: Secret::generate().unwrap(),
        note: None,
        expires_at,
    }
}

fn turn(incident_id: IncidentId, runner: &str, most: usize) -> Turn {
    let successor = || {
        let id = CustomCsrId::new(now());
        Successor { id, handover: Some(handover(id)) }
    };
    Turn { incident_id, runner: runner.to_owned(), successors: std::iter::repeat_with(successor).take(most).collect() }
}

/// Takes a turn; how many were rekeyed.
async fn went(store: &dyn Store, turn: &Turn) -> usize {
    match store.take_turn(turn, now()).await.unwrap() {
        Turned::Went { rekeyed, .. } => rekeyed.len(),
        other => panic!("{other:?}"),
    }
}

/// Takes turns until the plan is over.
async fn run(store: &dyn Store, id: IncidentId) {
    while store.take_turn(&turn(id, "only", TURN_MAX), now()).await.unwrap() != Turned::NotRunning {}
}

async fn progress(store: &dyn Store, id: IncidentId) -> Progress {
    store.find_incident(id).await.unwrap().unwrap().progress
}

async fn status(store: &dyn Store, id: IncidentId) -> IncidentStatus {
    store.find_incident(id).await.unwrap().unwrap().status
}

async fn rekeys(store: &dyn Store, id: IncidentId) -> Vec<Rekey> {
    store.list_rekeys(id, None, 1_000).await.unwrap()
}

/// Why the only custom CSR of a plan was skipped.
async fn reason(store: &dyn Store, id: IncidentId) -> Option<String> {
    let [rekey] = &rekeys(store, id).await[..] else { panic!() };
    assert_eq!(rekey.new_custom_csr_id.is_none(), rekey.reason.is_some());
    rekey.reason.clone()
}

async fn quota_used(store: &dyn Store, scope: &Scope) -> u32 {
    store.find_scope(scope).await.unwrap().unwrap().used
}

async fn found(store: &dyn Store, scope: &Scope, id: CustomCsrId) -> CustomCsr {
    store.find_custom_csr(scope, id).await.unwrap().unwrap()
}

async fn audited(store: &dyn Store) -> Vec<Entry> {
    let (mut run, mut entries) = (store.read_audit(AuditQuery::default()).await.unwrap(), Vec::new());
    loop {
        let page = run.next().await.unwrap();
        if page.is_empty() {
            return entries;
        }
        entries.extend(page);
    }
}

#[tokio::test]
async fn a_plan_changes_nothing_until_it_is_started_and_rekeys_each_custom_csr_once_without_the_quota() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 5).await;
    let ids = used(&*store, &scope, 5).await;
    // Two certificates of one custom CSR, and one that nobody needs any more.
    uploaded(&*store, &scope, ids[0], 1, tomorrow()).await;
    uploaded(&*store, &scope, ids[1], 2, now().minus(Duration::from_hours(1))).await;
    let id = plan(&*store).await;
    assert_eq!(progress(&*store, id).await, Progress { certificates: 6, custom_csrs: 5, planned: 5, ..Progress::default() });
    assert_eq!((status(&*store, id).await, store.wake_incidents().await.unwrap()), (IncidentStatus::Planned, Woken::default()));
    assert_eq!(store.take_turn(&turn(id, "a", TURN_MAX), now()).await.unwrap(), Turned::NotRunning);
    assert_eq!(quota_used(&*store, &scope).await, 5);

    started(&*store, id, None).await;
    assert_eq!(store.wake_incidents().await.unwrap(), Woken { running: 1, jobs: 1 });
    assert_eq!(store.wake_incidents().await.unwrap(), Woken { running: 1, jobs: 0 }, "its job waits");
    assert_eq!((went(&*store, &turn(id, "a", 2)).await, went(&*store, &turn(id, "a", TURN_MAX)).await), (2, 3));
    assert_eq!(store.take_turn(&turn(id, "a", TURN_MAX), now()).await.unwrap(), Turned::NotRunning);
    assert_eq!(status(&*store, id).await, IncidentStatus::Done);
    let expected = Progress { certificates: 6, custom_csrs: 5, rekeyed: 5, pending: 5, ..Progress::default() };
    assert_eq!((progress(&*store, id).await, quota_used(&*store, &scope).await), (expected, 5));
    let rekeys = rekeys(&*store, id).await;
    assert_eq!(rekeys.iter().map(|rekey| rekey.custom_csr_id).collect::<BTreeSet<_>>(), ids.iter().copied().collect());
    for rekey in &rekeys {
        let (old, new) =
            (found(&*store, &scope, rekey.custom_csr_id).await, found(&*store, &scope, rekey.new_custom_csr_id.unwrap()).await);
        assert_eq!((new.replaces, new.status, &new.request, &new.account), (Some(old.id), Status::Pending, &old.request, &old.account));
    }
    // A repeated start begins nothing anew.
    assert_eq!(store.start_incident(id, None, &operator(), now()).await.unwrap(), Some(IncidentStatus::Done));
    assert_eq!(store.take_turn(&turn(id, "a", TURN_MAX), now()).await.unwrap(), Turned::NotRunning);

    let entries = audited(&*store).await;
    let of = |action: &str| entries.iter().filter(|entry| entry.action == action).collect::<Vec<_>>();
    assert_eq!((of("incident_plan").len(), of("incident_start").len(), of("rekey").len()), (1, 1, 5));
    for entry in of("rekey") {
        assert_eq!((entry.actor.via, entry.actor.who.as_str()), (Via::Cli, "os:root"));
        assert_eq!(entry.actor.request_id.as_deref(), Some(id.to_string().as_str()));
        assert!(rekeys.iter().any(|rekey| entry.resource == format!("custom_csr/{}", rekey.new_custom_csr_id.unwrap())));
    }
    assert_eq!(of("incident_plan")[0].resource, format!("incident/{id}"));
}

#[tokio::test]
async fn the_place_in_the_quota_goes_with_the_last_of_those_that_share_it_in_whatever_order_they_are_deleted() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 5).await;
    for (round, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]].into_iter().enumerate() {
        let spki = u8::try_from(round * 3).unwrap();
        let old = active(&*store, &scope, spki).await;
        let mut all = vec![old];
        // Two plans one after the other: the second rekeys what the first made as well.
        let certificate = uploaded(&*store, &scope, old, spki, tomorrow()).await;
        run(&*store, started(&*store, plan(&*store).await, None).await).await;
        let other = started(&*store, plan(&*store).await, None).await;
        run(&*store, other).await;
        let made = store.list_custom_csrs(&scope, &super::query()).await.unwrap();
        all.extend(made.rows.iter().map(|csr| csr.id).filter(|id| *id != old));
        assert_eq!((all.len(), quota_used(&*store, &scope).await), (3, 1));
        assert!(store.delete_certificate(&scope, certificate, &actor(), now()).await.unwrap());
        for (gone, place) in order.into_iter().zip([1, 1, 0]) {
            assert_eq!(store.delete_custom_csr(&scope, all[gone], &actor(), now()).await.unwrap(), Deletion::Deleted);
            assert_eq!(quota_used(&*store, &scope).await, place, "{order:?}");
        }
    }
}

/// A custom CSR, and the one that a plan made of it. No certificate uses them.
async fn pair(store: &dyn Store, scope: &Scope, spki: u8) -> [CustomCsrId; 2] {
    let old = active(store, scope, spki).await;
    let certificate = uploaded(store, scope, old, spki, tomorrow()).await;
    let id = started(store, plan(store).await, None).await;
    run(store, id).await;
    assert!(store.delete_certificate(scope, certificate, &actor(), now()).await.unwrap());
    [old, rekeys(store, id).await[0].new_custom_csr_id.unwrap()]
}

#[tokio::test]
async fn those_that_share_a_place_in_the_quota_share_it_while_they_are_hidden_too() {
    let (test, store) = database().await;
    let scope = granted(&*store, 5).await;
    let used = async || {
        check_counts(&test).await;
        quota_used(&*store, &scope).await
    };
    let hide = async |id| store.hide_custom_csr(&scope, id, tomorrow(), &actor(), now()).await.unwrap();
    let restore = async |id| store.restore_custom_csr(&scope, id, 100, &actor(), now()).await.unwrap();
    let destroy = async |id| store.destroy_custom_csr(&scope, id, &actor(), now()).await.unwrap();
    for places in [(0, 1), (1, 0)] {
        let ids = pair(&*store, &scope, 1).await;
        let (first, other) = (ids[places.0], ids[places.1]);
        assert_eq!(used().await, 1);
        assert_eq!((hide(first).await, used().await), (Deletion::Deleted, 1));
        assert!(matches!(restore(first).await, Restoration::Restored(_)));
        assert_eq!(used().await, 1);
        assert_eq!((hide(first).await, hide(other).await, used().await), (Deletion::Deleted, Deletion::Deleted, 1));
        assert_eq!((store.destroy_due(tomorrow()).await.unwrap(), used().await), (2, 0));

        let ids = pair(&*store, &scope, 1).await;
        let (first, other) = (ids[places.0], ids[places.1]);
        assert_eq!(hide(first).await, Deletion::Deleted);
        assert_eq!((destroy(other).await, used().await), (Deletion::Deleted, 1), "the hidden one has the place");
        assert!(matches!(restore(first).await, Restoration::Restored(_)));
        assert_eq!(used().await, 1);
        assert_eq!((hide(first).await, destroy(first).await, used().await), (Deletion::Deleted, Deletion::Deleted, 0));

        let [old, new] = pair(&*store, &scope, 1).await;
        assert_eq!((hide(old).await, hide(new).await), (Deletion::Deleted, Deletion::Deleted));
        assert_eq!((destroy(new).await, used().await), (Deletion::Deleted, 1));
        assert_eq!((destroy(old).await, used().await), (Deletion::Deleted, 0));
    }
}

#[tokio::test]
async fn of_two_that_share_a_place_and_go_at_the_same_time_one_gives_it_back() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 50).await;
    let ids = used(&*store, &scope, 20).await;
    let id = started(&*store, plan(&*store).await, None).await;
    run(&*store, id).await;
    for row in &store.list_candidates(None, 100, now()).await.unwrap() {
        assert!(store.delete_certificate(&scope, row.id, &actor(), now()).await.unwrap());
    }
    let mut tasks = JoinSet::new();
    for gone in rekeys(&*store, id).await.iter().flat_map(|rekey| [Some(rekey.custom_csr_id), rekey.new_custom_csr_id]).flatten() {
        let (store, scope) = (Arc::clone(&store), scope.clone());
        tasks.spawn(async move {
            // A busy machine may have no connection for a moment.
            for _ in 0..100 {
                if let Ok(deletion) = store.delete_custom_csr(&scope, gone, &actor(), now()).await {
                    return deletion;
                }
            }
            panic!("never");
        });
    }
    assert!(tasks.join_all().await.into_iter().all(|deletion| matches!(deletion, Deletion::Deleted | Deletion::NotFound)));
    assert_eq!((quota_used(&*store, &scope).await, ids.len()), (0, 20));
}

#[tokio::test]
async fn what_another_plan_rekeyed_since_a_plan_was_made_is_passed_over_and_what_it_rekeyed_before_is_not() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 9).await;
    let ids = used(&*store, &scope, 4).await;
    let (first, second) = (plan(&*store).await, plan(&*store).await);
    started(&*store, first, None).await;
    assert_eq!(went(&*store, &turn(first, "a", 3)).await, 3);
    // It is stopped: what it did counts all the same.
    assert_eq!(store.stop_incident(first, &operator(), now()).await.unwrap(), Some(IncidentStatus::Running));
    assert_eq!(store.take_turn(&turn(first, "a", TURN_MAX), now()).await.unwrap(), Turned::NotRunning);
    run(&*store, started(&*store, second, None).await).await;
    let done = progress(&*store, second).await;
    assert_eq!((done.rekeyed, done.skipped), (1, 3));
    assert_eq!(rekeys(&*store, second).await.iter().filter(|rekey| rekey.reason.as_deref() == Some("rekeyed_by_other_plan")).count(), 3);
    // What is left of the first was rekeyed by the second meanwhile.
    run(&*store, started(&*store, first, None).await).await;
    let done = progress(&*store, first).await;
    assert_eq!((done.rekeyed, done.skipped), (3, 1));
    assert_eq!(store.list_custom_csrs(&scope, &super::query()).await.unwrap().total, 8, "each has one successor");
    let later = started(&*store, plan(&*store).await, None).await;
    run(&*store, later).await;
    assert_eq!((progress(&*store, later).await.rekeyed, ids.len()), (4, 4));
}

#[tokio::test]
async fn what_needs_no_rekey_any_more_or_may_have_none_is_skipped_with_the_reason() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 9).await;
    let old = active(&*store, &scope, 1).await;
    let certificate = uploaded(&*store, &scope, old, 1, tomorrow()).await;
    let [unused, revoked, gone] = [plan(&*store).await, plan(&*store).await, plan(&*store).await];
    store.revoke_scope(&scope, &actor(), now()).await.unwrap();
    run(&*store, started(&*store, revoked, None).await).await;
    assert_eq!(reason(&*store, revoked).await.as_deref(), Some("not_granted"));
    store.grant_scope(&scope, None, Some(9), &actor(), now()).await.unwrap();
    assert!(store.delete_certificate(&scope, certificate, &actor(), now()).await.unwrap());
    run(&*store, started(&*store, unused, None).await).await;
    assert_eq!(reason(&*store, unused).await.as_deref(), Some("unused"));
    assert_eq!(store.delete_custom_csr(&scope, old, &actor(), now()).await.unwrap(), Deletion::Deleted);
    run(&*store, started(&*store, gone, None).await).await;
    assert_eq!(reason(&*store, gone).await.as_deref(), Some("deleted"));
    assert_eq!((status(&*store, gone).await, quota_used(&*store, &scope).await), (IncidentStatus::Done, 0));
}

#[tokio::test]
async fn a_schedule_lets_as_many_go_as_are_due_whoever_takes_the_turns() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 9).await;
    used(&*store, &scope, 6).await;
    let hour = Duration::from_hours(1);
    let id = started(&*store, plan(&*store).await, Some(hour)).await;
    let Turned::Went { rekeyed, wait } = store.take_turn(&turn(id, "a", TURN_MAX), now()).await.unwrap() else { panic!() };
    assert!(rekeyed.len() == 1 && wait > hour / 2 && wait <= hour, "{wait:?}");
    assert_eq!(store.take_turn(&turn(id, "b", TURN_MAX), now()).await.unwrap(), Turned::Held);
    store.end_turns(id, "b").await.unwrap();
    assert_eq!(store.take_turn(&turn(id, "b", TURN_MAX), now()).await.unwrap(), Turned::Held, "only who has it leaves it");
    store.end_turns(id, "a").await.unwrap();
    assert_eq!(went(&*store, &turn(id, "b", TURN_MAX)).await, 0, "the schedule is not the runner's");
    // Neither a repeated start nor a stop in between hurries it.
    started(&*store, id, None).await;
    assert_eq!(went(&*store, &turn(id, "b", TURN_MAX)).await, 0);
    let shown = store.find_incident(id).await.unwrap().unwrap();
    assert_eq!((shown.pause, shown.progress.planned), (Some(hour), 5));
    // Another rate counts from now on.
    store.stop_incident(id, &operator(), now()).await.unwrap();
    started(&*store, id, Some(Duration::ZERO)).await;
    assert_eq!(went(&*store, &turn(id, "b", TURN_MAX)).await, 5);
}

#[tokio::test]
async fn many_runners_at_once_rekey_nothing_twice_and_leave_nothing_out() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let ids = used(&*store, &scope, 60).await;
    let plans = [started(&*store, plan(&*store).await, None).await, started(&*store, plan(&*store).await, None).await];
    let mut tasks = JoinSet::new();
    for runner in 0..6 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let (id, runner) = (plans[runner % 2], runner.to_string());
            loop {
                match store.take_turn(&turn(id, &runner, 7), now()).await {
                    Ok(Turned::NotRunning) => return,
                    // As if whoever had it was killed.
                    Ok(Turned::Held) => {
                        for other in 0..6 {
                            let _ = store.end_turns(id, &other.to_string()).await;
                        }
                    }
                    Ok(Turned::Went { .. }) | Err(_) => {}
                }
            }
        });
    }
    tasks.join_all().await;
    let (one, other) = (progress(&*store, plans[0]).await, progress(&*store, plans[1]).await);
    assert_eq!((one.planned + other.planned, one.rekeyed + other.rekeyed), (0, 60));
    let mut made = BTreeSet::new();
    for id in plans {
        made.extend(rekeys(&*store, id).await.into_iter().filter_map(|rekey| rekey.new_custom_csr_id));
    }
    let pending =
        store.list_custom_csrs(&scope, &crate::storage::ListQuery { status: Some(Status::Pending), ..super::query() }).await.unwrap();
    assert_eq!((made.len(), pending.total, ids.len()), (60, 60, 60));
}

#[tokio::test]
async fn a_rekey_is_told_with_a_link_when_its_csr_is_there_to_those_that_ask_for_it_and_to_nobody_else() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 9).await;
    let quiet = zone("quiet");
    store.grant_scope(&quiet, None, Some(9), &actor(), now()).await.unwrap();
    store.grant_scope(&account("a1"), None, Some(9), &actor(), now()).await.unwrap();
    let hook = webhook(&*store, &account("a1"), &["custom_csr.incident_rekeyed"]).await;
    let old = active(&*store, &scope, 1).await;
    let certificate = uploaded(&*store, &scope, old, 1, tomorrow()).await;
    let untold = active(&*store, &quiet, 2).await;
    uploaded(&*store, &quiet, untold, 2, tomorrow()).await;
    let id = started(&*store, plan(&*store).await, None).await;
    run(&*store, id).await;
    let new_of = async |old| rekeys(&*store, id).await.iter().find(|rekey| rekey.custom_csr_id == old).unwrap().new_custom_csr_id.unwrap();
    let (new, other) = (new_of(old).await, new_of(untold).await);
    assert_eq!(told(&*store, hook).await, []);
    for (made, spki) in [(new, 3), (other, 4)] {
        assert!(store.complete_generation(made, &generated(spki), now()).await.unwrap().is_completed());
    }
    let due = store.take_due(hook, 10, Duration::from_secs(45), now()).await.unwrap();
    let [due] = &due[..] else { panic!("{due:?}") };
    let [link] = &store.list_handovers(&scope, new).await.unwrap()[..] else { panic!() };
    assert_eq!((due.event.as_str(), events::handover(&due.data)), ("custom_csr.incident_rekeyed", Some(link.id)));
    assert_eq!((link.custom_csr_id, link.replaces), (new, Some(certificate)));
    let body: Value =
        serde_json::from_str(&events::body(&due.event, due.occurred_at, &due.data, Some("https://csrd.example/handover/x")).unwrap())
            .unwrap();
    assert_eq!((&body["data"]["id"], &body["data"]["replaces"]), (&json!(new.to_string()), &json!(old.to_string())));
    assert_eq!(body["data"]["handover_url"], "https://csrd.example/handover/x");
    assert!(store.list_handovers(&quiet, other).await.unwrap().is_empty(), "nobody would get it");
    // A rekey of the tenant's own is none.
    active(&*store, &scope, 5).await;
    assert_eq!(told(&*store, hook).await, []);
}

#[tokio::test]
async fn a_tenant_that_is_erased_is_forgotten_and_so_is_a_plan_that_is_old() {
    let (test, store) = database().await;
    let scope = granted(&*store, 9).await;
    let other = zone("z2");
    store.grant_scope(&other, None, Some(9), &actor(), now()).await.unwrap();
    let mine = active(&*store, &scope, 1).await;
    uploaded(&*store, &scope, mine, 1, tomorrow()).await;
    let theirs = active(&*store, &other, 2).await;
    uploaded(&*store, &other, theirs, 2, tomorrow()).await;
    let id = plan(&*store).await;
    store.forget_in_incidents(&scope).await.unwrap();
    assert_eq!(progress(&*store, id).await, Progress { certificates: 1, custom_csrs: 1, planned: 1, ..Progress::default() });
    assert_eq!(rekeys(&*store, id).await[0].custom_csr_id, theirs);
    let later = now().plus(Duration::from_secs(1));
    assert_eq!(store.purge_incidents(now().minus(Duration::from_hours(1))).await.unwrap(), 0);
    started(&*store, id, None).await;
    assert_eq!(store.purge_incidents(later).await.unwrap(), 0, "it runs");
    run(&*store, id).await;
    assert_eq!(store.purge_incidents(later).await.unwrap(), 1);
    assert!(store.find_incident(id).await.unwrap().is_none() && store.list_incidents().await.unwrap().is_empty());
    for table in ["incident_certificates", "incident_rekeys"] {
        assert_eq!(test.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0);
    }
    assert_eq!(store.start_incident(id, None, &operator(), now()).await.unwrap(), None);
    assert_eq!(store.stop_incident(id, &operator(), now()).await.unwrap(), None);
}
