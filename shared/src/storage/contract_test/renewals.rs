//! Renewals: each begins when it is due, by its policy, makes one custom CSR where it wants one, and is told of once, whoever looks and however often.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    certificates::{active, certificate, chain},
    database, generated, granted,
    webhooks::{due, webhook},
};
use crate::{
    audit::Actor,
    clock::Timestamp,
    events,
    handover::{NewHandover, Secret},
    ids::{CustomCertificateId, CustomCsrId, HandoverId, Scope, WebhookId},
    renewal::{Fraction, RenewalKey, RenewalStatus},
    storage::{CertificateChange, DueRenewal, RenewalOutcome, RenewalStep, Replacement, Store},
    testing::{account, actor, now, zone},
};

const DAY: Duration = Duration::from_hours(24);

async fn policy(store: &dyn Store, zone: &Scope, key: RenewalKey) {
    store.put_renewal_policy(zone, key, Fraction::new(0.5).unwrap(), &actor(), now()).await.unwrap();
}

/// A certificate for a hundred days from now, of another leaf each time.
fn leaf(csr: CustomCsrId, spki: u8, from: Timestamp) -> crate::storage::NewChain {
    let mut new = chain(csr, spki, from.plus(DAY * 100));
    new.chain.leaf.not_before = from;
    new.chain.leaf.fingerprint_sha256 = CustomCsrId::new(now()).to_string();
    new
}

async fn uploaded(store: &dyn Store, zone: &Scope, csr: CustomCsrId, spki: u8) -> CustomCertificateId {
    let new = certificate(zone, leaf(csr, spki, now()));
    assert_eq!(store.accept_certificate(&new, &actor(), now()).await.unwrap(), None);
    new.id
}

async fn renewed(store: &dyn Store, zone: &Scope, id: CustomCertificateId, csr: CustomCsrId, spki: u8, at: Timestamp) {
    let change = CertificateChange { chain: Some(leaf(csr, spki, at)), ..CertificateChange::default() };
    let replaced = store.replace_certificate(zone, id, &change, &actor(), at).await.unwrap();
    assert!(matches!(replaced, Replacement::Replaced(_)), "{replaced:?}");
}

async fn all_due(store: &dyn Store, at: Timestamp) -> Vec<DueRenewal> {
    let (due, next) = store.list_due_renewals("", 100, at).await.unwrap();
    assert_eq!(next, None);
    due
}

async fn only_due(store: &dyn Store, at: Timestamp) -> DueRenewal {
    let mut due = all_due(store, at).await;
    assert_eq!(due.len(), 1, "{due:?}");
    due.remove(0)
}

fn link(due: &DueRenewal) -> Option<NewHandover> {
    let RenewalStep::Announce(custom_csr_id) = due.step else { return None };
    let (id, secret) = (HandoverId::new(now()), Secret::generate().unwrap());
    Some(NewHandover { id, custom_csr_id, replaces: Some(due.certificate.id), secret, note: None, expires_at: now().plus(DAY * 365) })
}

async fn step(store: &dyn Store, due: &DueRenewal, at: Timestamp) -> RenewalOutcome {
    store.renew(due, link(due).as_ref(), &Actor::worker("renewal"), at).await.unwrap()
}

async fn status(store: &dyn Store, zone: &Scope, id: CustomCertificateId) -> RenewalStatus {
    store.find_certificate(zone, id).await.unwrap().unwrap().renewal.status
}

/// What the webhook was told of renewals: `data` of each event.
async fn told(store: &dyn Store, hook: WebhookId) -> Vec<Value> {
    let data = |due: &crate::storage::Due| {
        assert_eq!(due.event, "custom_certificate.renewal_due");
        let url = events::handover(&due.data).map(|id| id.to_string());
        let body: Value = serde_json::from_str(&events::body(&due.event, due.occurred_at, &due.data, url.as_deref()).unwrap()).unwrap();
        body["data"].clone()
    };
    due(store, hook).await.iter().map(data).collect()
}

async fn hooked(store: &dyn Store, zone: &Scope) -> WebhookId {
    webhook(store, zone, &["custom_certificate.renewal_due"]).await
}

/// The custom CSR that a renewal made, once it is active.
async fn made(store: &dyn Store, test: &crate::testing::TestDatabase, replaces: CustomCsrId, spki: u8) -> CustomCsrId {
    let zone = zone("z1");
    let page = store.list_custom_csrs(&zone, &super::query()).await.unwrap();
    let made: Vec<_> = page.rows.iter().filter(|csr| csr.replaces == Some(replaces)).collect();
    assert_eq!(made.len(), 1, "one custom CSR, and no other");
    assert_eq!(
        test.number(&format!("SELECT COUNT(*) FROM {{jobs}} WHERE id = (SELECT job_id FROM custom_csrs WHERE id = '{}')", made[0].id))
            .await,
        1
    );
    assert!(store.complete_generation(made[0].id, &generated(spki), now()).await.unwrap().is_completed());
    made[0].id
}

#[tokio::test]
async fn a_policy_is_set_changed_read_and_deleted_by_its_zone() {
    let (_test, store) = database().await;
    let (zone, other) = (granted(&*store, 10).await, zone("z2"));
    store.grant_scope(&other, None, None, &actor(), now()).await.unwrap();
    assert_eq!(store.find_renewal_policy(&zone).await.unwrap(), None);
    let set = store.put_renewal_policy(&zone, RenewalKey::New, Fraction::default(), &actor(), now()).await.unwrap();
    assert_eq!((set.key, set.at, &set.zone), (RenewalKey::New, Fraction::default(), &zone));
    let later = now().plus(DAY);
    let changed = store.put_renewal_policy(&zone, RenewalKey::Reuse, Fraction::new(0.1).unwrap(), &actor(), later).await.unwrap();
    assert_eq!((changed.key, changed.created_at, changed.updated_at), (RenewalKey::Reuse, set.created_at, later));
    assert_eq!(store.find_renewal_policy(&zone).await.unwrap(), Some(changed));
    assert_eq!(store.find_renewal_policy(&other).await.unwrap(), None);
    assert!(!store.delete_renewal_policy(&other, &actor(), now()).await.unwrap());
    assert!(store.delete_renewal_policy(&zone, &actor(), now()).await.unwrap());
    assert_eq!(store.find_renewal_policy(&zone).await.unwrap(), None);
}

#[tokio::test]
async fn with_the_same_key_a_renewal_is_due_ready_told_once_and_done_until_the_next_point() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr, 1).await;
    let hook = hooked(&*store, &zone).await;
    assert!(all_due(&*store, now().plus(DAY * 60)).await.is_empty(), "without a policy nothing happens");
    policy(&*store, &zone, RenewalKey::Reuse).await;
    assert!(all_due(&*store, now().plus(DAY * 49)).await.is_empty(), "not before its point");
    let mut at = now().plus(DAY * 51);
    for round in 1..=2 {
        let begun = only_due(&*store, at).await;
        assert_eq!((begun.step, begun.certificate.id), (RenewalStep::Begin, id));
        assert_eq!(step(&*store, &begun, at).await, RenewalOutcome::Done);
        assert_eq!(status(&*store, &zone, id).await, RenewalStatus::Due);
        let ready = only_due(&*store, at).await;
        assert_eq!(ready.step, RenewalStep::Announce(csr));
        assert_eq!(step(&*store, &ready, at).await, RenewalOutcome::Done);
        assert_eq!(status(&*store, &zone, id).await, RenewalStatus::CsrReady);
        assert!(all_due(&*store, at.plus(DAY * 5)).await.is_empty());
        // Whoever looked at the same time comes too late.
        assert_eq!(step(&*store, &ready, at).await, RenewalOutcome::Overtaken);
        assert_eq!(step(&*store, &begun, at).await, RenewalOutcome::Overtaken);
        let told = told(&*store, hook).await;
        assert_eq!(told.len(), 1);
        assert_eq!((&told[0]["id"], &told[0]["renewal"]), (&id.to_string().into(), &"csr_ready".into()));
        assert_eq!(told[0]["custom_csr"]["id"], csr.to_string());
        assert_eq!(told[0]["custom_csr"]["custom_certificate_ids"], serde_json::json!([id.to_string()]));
        let links = store.list_handovers(&zone, csr).await.unwrap();
        assert_eq!((links.len(), links[0].replaces), (round, Some(id)));
        assert_eq!(told[0]["handover_url"], links[0].id.to_string());
        renewed(&*store, &zone, id, csr, 1, at).await;
        assert_eq!(status(&*store, &zone, id).await, RenewalStatus::Done);
        let links = store.list_handovers(&zone, csr).await.unwrap();
        assert_eq!(links[0].revoked_at, Some(at), "nobody is to renew it once more");
        assert!(all_due(&*store, at.plus(DAY * 49)).await.is_empty(), "until the next point");
        at = at.plus(DAY * 51);
    }
}

#[tokio::test]
async fn only_a_renewed_certificate_ends_the_link_of_its_renewal() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr, 1).await;
    policy(&*store, &zone, RenewalKey::Reuse).await;
    let at = now().plus(DAY * 51);
    for _ in 0..2 {
        step(&*store, &only_due(&*store, at).await, at).await;
    }
    let (by_hand, secret) = (HandoverId::new(at), Secret::generate().unwrap());
    let new = NewHandover { id: by_hand, custom_csr_id: csr, replaces: None, secret, note: None, expires_at: at.plus(DAY) };
    store.create_handover(&zone, &new, &actor(), at).await.unwrap();
    let ended = async || -> Vec<_> {
        let links = store.list_handovers(&zone, csr).await.unwrap();
        links.iter().filter(|link| link.revoked_at.is_some()).map(|link| link.replaces).collect()
    };
    let present = store.find_certificate(&zone, id).await.unwrap().unwrap().chain;
    let again = crate::storage::NewChain { chain: present, ..leaf(csr, 1, now()) };
    let bundled = CertificateChange { chain: Some(again), ..CertificateChange::default() };
    let described = CertificateChange { priority: Some(7), ..CertificateChange::default() };
    for change in [bundled, described] {
        let replaced = store.replace_certificate(&zone, id, &change, &actor(), at).await.unwrap();
        assert!(matches!(replaced, Replacement::Replaced(_)), "{replaced:?}");
        assert_eq!(status(&*store, &zone, id).await, RenewalStatus::CsrReady);
        assert_eq!(ended().await, [], "the same leaf renews nothing");
    }
    renewed(&*store, &zone, id, csr, 1, at).await;
    assert_eq!(ended().await, [Some(id)], "that of the renewal, and not the one that somebody made");
    renewed(&*store, &zone, id, csr, 1, at.plus(DAY)).await;
    assert_eq!(ended().await, [Some(id)]);
}

#[tokio::test]
async fn with_a_new_key_it_is_rekeyed_once_whoever_looks_and_told_of_when_the_custom_csr_is_active() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr, 1).await;
    let hook = hooked(&*store, &zone).await;
    policy(&*store, &zone, RenewalKey::New).await;
    let at = now().plus(DAY * 51);
    for expected in [RenewalStatus::Due, RenewalStatus::CsrReady] {
        let due = Arc::new(only_due(&*store, at).await);
        let mut workers = JoinSet::new();
        for _ in 0..6 {
            let (store, due) = (Arc::clone(&store), Arc::clone(&due));
            workers.spawn(async move { step(&*store, &due, at).await });
        }
        let outcomes = workers.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == RenewalOutcome::Done).count(), 1, "{outcomes:?}");
        assert_eq!(status(&*store, &zone, id).await, expected);
        if expected == RenewalStatus::Due {
            assert!(all_due(&*store, at).await.is_empty(), "it waits for its custom CSR");
            assert_eq!(store.find_scope(&zone).await.unwrap().unwrap().used, 2, "it counts against the quota");
            made(&*store, &test, csr, 2).await;
        }
    }
    let told = told(&*store, hook).await;
    assert_eq!(told.len(), 1);
    let new = CustomCsrId::parse(told[0]["custom_csr"]["id"].as_str().unwrap()).unwrap();
    assert_eq!((&told[0]["custom_csr_id"], &told[0]["custom_csr"]["replaces"]), (&csr.to_string().into(), &csr.to_string().into()));
    assert_eq!(told[0]["custom_csr"]["status"], "active");
    renewed(&*store, &zone, id, new, 2, at).await;
    assert_eq!(status(&*store, &zone, id).await, RenewalStatus::Done);
    // The custom CSR that was replaced is free.
    assert_eq!(store.delete_custom_csr(&zone, csr, &actor(), at).await.unwrap(), crate::storage::Deletion::Deleted);
}

#[tokio::test]
async fn a_custom_csr_that_was_told_of_and_deleted_is_followed_by_another_one_after_a_while() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr, 1).await;
    policy(&*store, &zone, RenewalKey::New).await;
    let (hook, point) = (hooked(&*store, &zone).await, now().plus(DAY * 50));
    step(&*store, &only_due(&*store, point).await, point).await;
    let first = made(&*store, &test, csr, 2).await;
    step(&*store, &only_due(&*store, point).await, point).await;
    store.delete_custom_csr(&zone, first, &actor(), point).await.unwrap();
    assert!(all_due(&*store, point.plus(Duration::from_mins(59))).await.is_empty());

    let later = point.plus(Duration::from_hours(1));
    assert_eq!(step(&*store, &only_due(&*store, later).await, later).await, RenewalOutcome::Done);
    assert_eq!(status(&*store, &zone, id).await, RenewalStatus::Due);
    let second = made(&*store, &test, csr, 3).await;
    assert_eq!(step(&*store, &only_due(&*store, later).await, later).await, RenewalOutcome::Done);
    assert_eq!((status(&*store, &zone, id).await, all_due(&*store, later.plus(DAY)).await.len()), (RenewalStatus::CsrReady, 0));
    let told: BTreeSet<_> = told(&*store, hook).await.iter().map(|data| data["custom_csr"]["id"].as_str().map(str::to_owned)).collect();
    assert_eq!(told, BTreeSet::from([first, second].map(|id| Some(id.to_string()))));
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_told_once_and_the_renewal_goes_on_when_there_is_room() {
    let (test, store) = database().await;
    let zone = granted(&*store, 1).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr, 1).await;
    let hook = hooked(&*store, &zone).await;
    policy(&*store, &zone, RenewalKey::New).await;
    let at = now().plus(DAY * 51);
    for _ in 0..3 {
        let due = only_due(&*store, at).await;
        assert_eq!(step(&*store, &due, at).await, RenewalOutcome::Refused);
    }
    let refused = told(&*store, hook).await;
    assert_eq!(refused.len(), 1);
    assert!(refused[0]["renewal_error"].as_str().unwrap().starts_with("The quota is used up"), "{}", refused[0]);
    assert_eq!((&refused[0]["custom_csr"], &refused[0]["renewal"]), (&Value::Null, &"due".into()));
    assert_eq!(refused[0].get("handover_url"), None);
    assert_eq!((status(&*store, &zone, id).await, store.find_scope(&zone).await.unwrap().unwrap().used), (RenewalStatus::Due, 1));
    store.grant_scope(&zone, account("a1").id().into(), Some(5), &actor(), now()).await.unwrap();
    let at = at.plus(Duration::from_mins(1));
    assert_eq!(step(&*store, &only_due(&*store, at).await, at).await, RenewalOutcome::Done);
    made(&*store, &test, csr, 2).await;
    assert_eq!(step(&*store, &only_due(&*store, at).await, at).await, RenewalOutcome::Done);
    let ready = told(&*store, hook).await;
    assert_eq!((ready.len(), ready[0].get("renewal_error")), (1, None));
    assert!(ready[0]["handover_url"].is_string());
}

#[tokio::test]
async fn what_changes_between_two_steps_decides() {
    let (test, store) = database().await;
    let zone = granted(&*store, 20).await;
    let at = now().plus(DAY * 51);
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr, 1).await;
    let hook = hooked(&*store, &zone).await;
    // The policy wants another key, or is gone, since somebody looked.
    policy(&*store, &zone, RenewalKey::New).await;
    let with_new = only_due(&*store, at).await;
    policy(&*store, &zone, RenewalKey::Reuse).await;
    assert_eq!(step(&*store, &with_new, at).await, RenewalOutcome::Overtaken);
    policy(&*store, &zone, RenewalKey::New).await;
    store.delete_renewal_policy(&zone, &actor(), now()).await.unwrap();
    assert_eq!(step(&*store, &with_new, at).await, RenewalOutcome::Overtaken);
    assert_eq!(store.find_scope(&zone).await.unwrap().unwrap().used, 1, "no custom CSR was made");
    // A policy that goes takes with it what waits for a custom CSR.
    policy(&*store, &zone, RenewalKey::New).await;
    assert_eq!(step(&*store, &only_due(&*store, at).await, at).await, RenewalOutcome::Done);
    store.delete_renewal_policy(&zone, &actor(), now()).await.unwrap();
    assert_eq!(status(&*store, &zone, id).await, RenewalStatus::None);
    made(&*store, &test, csr, 2).await;
    assert!(all_due(&*store, at).await.is_empty());
    // The custom CSR is deleted before it is told of: there is another one.
    policy(&*store, &zone, RenewalKey::New).await;
    let first = only_due(&*store, at).await;
    assert_eq!(step(&*store, &first, at).await, RenewalOutcome::Done);
    let newest = store.list_custom_csrs(&zone, &super::query()).await.unwrap().rows.remove(0);
    assert_eq!((newest.replaces, newest.status), (Some(csr), crate::custom_csr::Status::Pending));
    store.delete_custom_csr(&zone, newest.id, &actor(), now()).await.unwrap();
    let again = only_due(&*store, at).await;
    assert_eq!(again.step, RenewalStep::Begin);
    assert_eq!(step(&*store, &again, at).await, RenewalOutcome::Done);
    // One that failed is followed by another one, an hour later.
    let newest = store.list_custom_csrs(&zone, &super::query()).await.unwrap().rows.remove(0);
    assert!(store.fail_generation(newest.id, "by a test", at).await.unwrap());
    assert!(all_due(&*store, at).await.is_empty());
    let at = at.plus(Duration::from_hours(2));
    assert_eq!(step(&*store, &only_due(&*store, at).await, at).await, RenewalOutcome::Done);
    let newest = store.list_custom_csrs(&zone, &super::query()).await.unwrap().rows.remove(0);
    assert!(store.complete_generation(newest.id, &generated(9), now()).await.unwrap().is_completed());
    // The certificate is renewed before anybody was told: nobody is.
    let ready = only_due(&*store, at).await;
    renewed(&*store, &zone, id, csr, 1, at).await;
    assert_eq!(step(&*store, &ready, at).await, RenewalOutcome::Overtaken);
    assert_eq!(status(&*store, &zone, id).await, RenewalStatus::Done);
    assert!(all_due(&*store, at).await.is_empty());
    // The certificate is deleted.
    let late = at.plus(DAY * 51);
    let due = only_due(&*store, late).await;
    assert!(store.delete_certificate(&zone, id, &actor(), now()).await.unwrap());
    let before = store.find_scope(&zone).await.unwrap().unwrap().used;
    assert_eq!(step(&*store, &due, late).await, RenewalOutcome::Overtaken);
    assert_eq!(store.find_scope(&zone).await.unwrap().unwrap().used, before);
    assert_eq!(told(&*store, hook).await, Vec::<Value>::new());
}

#[tokio::test]
async fn only_certificates_in_use_of_granted_zones_with_a_policy_are_due() {
    let (test, store) = database().await;
    let mine = granted(&*store, 10).await;
    let other = zone("z2");
    store.grant_scope(&other, None, Some(10), &actor(), now()).await.unwrap();
    let (csr, others) = (active(&*store, &mine, 1).await, active(&*store, &other, 2).await);
    let over = uploaded(&*store, &mine, csr, 1).await;
    test.execute(&format!("UPDATE custom_certificates SET not_after = {} WHERE id = '{over}'", now().minus(DAY).micros())).await;
    let id = uploaded(&*store, &mine, csr, 1).await;
    uploaded(&*store, &other, others, 2).await;
    policy(&*store, &mine, RenewalKey::Reuse).await;
    let at = now().plus(DAY * 51);
    assert_eq!(only_due(&*store, at).await.certificate.id, id);
    // It was in use when the policy was set: it is renewed even after an outage that outlasts it.
    assert_eq!(only_due(&*store, now().plus(DAY * 300)).await.certificate.id, id);
    store.revoke_scope(&mine, &actor(), now()).await.unwrap();
    assert!(all_due(&*store, at).await.is_empty());
    // The window of its issuer comes first.
    store.grant_scope(&mine, None, Some(10), &actor(), now()).await.unwrap();
    let set = format!("ari_leaf = fingerprint_sha256, ari_window_start = {}", now().minus(DAY).micros());
    test.execute(&format!("UPDATE custom_certificates SET {set} WHERE id = '{id}'")).await;
    assert_eq!(only_due(&*store, now()).await.certificate.id, id);
}
