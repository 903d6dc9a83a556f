//! Webhooks, and what they are told: every event once, in the transaction of what it reports.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::{
    accept,
    certificates::{active, certificate, chain},
    database, generated, granted,
};
use crate::{
    clock::Timestamp,
    events::{self, STALE_AFTER},
    ids::{CustomCsrId, Scope, WebhookId},
    seal::{MasterKey, Sealer},
    storage::{
        Attempt, CertificateChange, Deletion, Due, NewWebhook, Replacement, Resealed, Retirement, Store, WebhookChange, WebhookCreation,
    },
    testing::{account, actor, now, zone},
    webhook::{DELIVERIES_SHOWN, Delivery, DeliveryStatus, GIVEN_UP_MAX, WEBHOOKS_MAX},
    webhook_secret::WebhookKey,
};

const DAY: Duration = Duration::from_hours(24);
const LEASE: Duration = Duration::from_secs(45);

async fn key(store: &dyn Store) -> String {
    if let Some(key) = store.find_webhook_key().await.unwrap() {
        return key.id;
    }
    let sealer = Sealer::new(MasterKey::generate().unwrap(), Vec::new());
    let mut key = WebhookKey::generate("k".to_owned(), &sealer).unwrap();
    key.master_key_id = super::MASTER_KEY.to_owned();
    store.add_webhook_key(&key, now()).await.unwrap();
    key.id
}

async fn create(store: &dyn Store, scope: &Scope, events: &[&str]) -> WebhookCreation {
    let new = NewWebhook {
        id: WebhookId::new(now()),
        scope: scope.clone(),
        url: "https://hooks.example/".to_owned(),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        description: None,
        enabled: true,
        webhook_key_id: key(store).await,
        sealed_secret: vec![1, 2, 3],
    };
    // Made a while ago: what is due since is told.
    store.create_webhook(&new, &actor(), now().minus(DAY * 400)).await.unwrap()
}

pub(super) async fn webhook(store: &dyn Store, scope: &Scope, events: &[&str]) -> WebhookId {
    match create(store, scope, events).await {
        WebhookCreation::Created(webhook) => webhook.id,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn due(store: &dyn Store, id: WebhookId) -> Vec<Due> {
    store.take_due(id, 1_000, LEASE, now()).await.unwrap()
}

/// The types of the events that are due, with the IDs of what they are about, in any order.
pub(super) async fn told(store: &dyn Store, id: WebhookId) -> Vec<(String, String)> {
    let about = |due: &Due| {
        let body: Value = serde_json::from_str(&events::body(&due.event, due.occurred_at, &due.data, None).unwrap()).unwrap();
        body["data"]["id"].as_str().unwrap().to_owned()
    };
    let mut told: Vec<_> = due(store, id).await.iter().map(|due| (due.event.clone(), about(due))).collect();
    told.sort();
    told
}

fn event(kind: &str, id: &impl ToString) -> (String, String) {
    (kind.to_owned(), id.to_string())
}

#[tokio::test]
async fn the_end_of_a_generation_is_told_to_the_webhooks_of_the_zone_and_of_its_account_that_ask_for_it() {
    let (_test, store) = database().await;
    let zone1 = granted(&*store, 10).await;
    for (scope, account_id) in [(zone("z2"), Some(account("a2"))), (account("a1"), None), (account("a2"), None)] {
        let owner = account_id.as_ref().map(Scope::id);
        store.grant_scope(&scope, owner, Some(10), &actor(), now()).await.unwrap();
    }
    let before = active(&*store, &zone1, 1).await;
    let all = webhook(&*store, &zone1, &["*"]).await;
    let active_only = webhook(&*store, &zone1, &["custom_csr.active"]).await;
    let certificates = webhook(&*store, &zone1, &["custom_certificate.uploaded"]).await;
    let of_account = webhook(&*store, &account("a1"), &["*"]).await;
    let others = [webhook(&*store, &zone("z2"), &["*"]).await, webhook(&*store, &account("a2"), &["*"]).await];
    let (made, failed) = (active(&*store, &zone1, 2).await, accept(&*store, &zone1).await);
    assert!(store.fail_generation(failed, "no", now()).await.unwrap());
    assert!(!store.fail_generation(failed, "again", now()).await.unwrap());
    assert!(!store.complete_generation(made, &generated(3), now()).await.unwrap().is_completed());
    let both = [event("custom_csr.active", &made), event("custom_csr.failed", &failed)];
    assert_eq!(told(&*store, all).await, both);
    assert_eq!(told(&*store, of_account).await, both);
    assert_eq!(told(&*store, active_only).await, both[..1]);
    for nothing in [certificates, others[0], others[1]] {
        assert_eq!(told(&*store, nothing).await, []);
    }
    // A zone that moves to another account leaves the former one's webhooks.
    store.grant_scope(&zone1, Some(account("a2").id()), Some(10), &actor(), now()).await.unwrap();
    let moved = active(&*store, &zone1, 4).await;
    assert_eq!((told(&*store, of_account).await, told(&*store, others[1]).await), (Vec::new(), vec![event("custom_csr.active", &moved)]));
    assert_ne!(before, moved);
}

#[tokio::test]
async fn what_becomes_of_a_certificate_is_told_and_what_only_changes_its_settings_is_not() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let hook = webhook(&*store, &zone, &["*"]).await;
    let new = certificate(&zone, chain(csr, 1, now().plus(DAY * 200)));
    assert_eq!(store.accept_certificate(&new, &actor(), now()).await.unwrap(), None);
    assert_eq!(told(&*store, hook).await, [event("custom_certificate.uploaded", &new.id)]);
    for (change, replaces) in [
        (CertificateChange { priority: Some(3), ..CertificateChange::default() }, false),
        (CertificateChange { chain: Some(chain(csr, 1, now().plus(DAY * 300))), ..CertificateChange::default() }, true),
    ] {
        let replaced = store.replace_certificate(&zone, new.id, &change, &actor(), now()).await.unwrap();
        assert!(matches!(replaced, Replacement::Replaced(_)));
        let expected = if replaces { vec![event("custom_certificate.replaced", &new.id)] } else { Vec::new() };
        assert_eq!(told(&*store, hook).await, expected);
    }
    assert!(store.delete_certificate(&zone, new.id, &actor(), now()).await.unwrap());
    assert_eq!(told(&*store, hook).await, [event("custom_certificate.deleted", &new.id)]);
}

#[tokio::test]
async fn what_others_were_told_of_a_tenant_is_forgotten_but_not_that_its_certificates_are_to_be_told_deleted() {
    let (test, store) = database().await;
    let zone1 = granted(&*store, 10).await;
    for (scope, account_id) in [(zone("z2"), Some(account("a1"))), (account("a1"), None)] {
        store.grant_scope(&scope, account_id.as_ref().map(Scope::id), Some(10), &actor(), now()).await.unwrap();
    }
    let hook = webhook(&*store, &account("a1"), &["*"]).await;
    let csr = active(&*store, &zone1, 1).await;
    let [told_before, to_be_told] = [1, 2].map(|days| certificate(&zone1, chain(csr, 1, now().plus(DAY * 200 * days))));
    for new in [&told_before, &to_be_told] {
        assert_eq!(store.accept_certificate(new, &actor(), now()).await.unwrap(), None);
    }
    assert!(store.delete_certificate(&zone1, told_before.id, &actor(), now()).await.unwrap());
    for due in due(&*store, hook).await {
        store.end_attempt(hook, &due, Attempt::Delivered, Some(200), now()).await.unwrap();
    }
    assert!(store.delete_certificate(&zone1, to_be_told.id, &actor(), now()).await.unwrap());
    let theirs = active(&*store, &zone("z2"), 2).await;
    assert_eq!(store.forget_told(&zone1).await.unwrap(), 4);
    assert_eq!(told(&*store, hook).await, [event("custom_certificate.deleted", &to_be_told.id), event("custom_csr.active", &theirs)]);
    assert_eq!(test.number("SELECT COUNT(*) FROM deliveries").await, 2);
    assert_eq!(store.forget_told(&zone1).await.unwrap(), 0);
}

async fn uploaded(store: &dyn Store, zone: &Scope, csr: CustomCsrId, days: u32, at: Timestamp) -> crate::ids::CustomCertificateId {
    let mut new = certificate(zone, chain(csr, 1, at.plus(DAY * days)));
    new.chain.chain.leaf.not_before = at;
    assert_eq!(store.accept_certificate(&new, &actor(), at).await.unwrap(), None);
    new.id
}

#[tokio::test]
async fn an_expiry_is_told_at_each_of_its_moments_once_and_begins_anew_when_it_is_renewed() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let (csr, start) = (active(&*store, &zone, 1).await, now().minus(DAY * 300));
    let hook = webhook(&*store, &zone, &["custom_certificate.expiring", "custom_certificate.expired"]).await;
    let id = uploaded(&*store, &zone, csr, 100, start).await;
    let mut days_left = Vec::new();
    for day in 0..=101 {
        let then = start.plus(DAY * day).plus(Duration::from_secs(1));
        for _ in 0..2 {
            store.tell_time(then).await.unwrap();
        }
        for due in due(&*store, hook).await {
            let body: Value = serde_json::from_str(&events::body(&due.event, due.occurred_at, &due.data, None).unwrap()).unwrap();
            days_left.push((day, due.event, body["data"]["days_left"].as_u64()));
        }
    }
    let expiring = |day, left| (day, "custom_certificate.expiring".to_owned(), Some(left));
    let mut expected: Vec<_> = [30, 14, 7, 3, 1].map(|left| expiring(100 - left, u64::from(left))).to_vec();
    expected.push((100, "custom_certificate.expired".to_owned(), None));
    assert_eq!(days_left, expected);
    // Renewed for 48 days on the 101st.
    let then = start.plus(DAY * 101);
    let mut renewed = chain(csr, 1, then.plus(DAY * 48));
    renewed.chain.leaf.not_before = then;
    let change = CertificateChange { chain: Some(renewed), ..CertificateChange::default() };
    store.replace_certificate(&zone, id, &change, &actor(), then).await.unwrap();
    let mut days = Vec::new();
    for day in 0..50 {
        store.tell_time(then.plus(DAY * day).plus(Duration::from_secs(1))).await.unwrap();
        days.extend(due(&*store, hook).await.iter().map(|_| day));
    }
    assert_eq!(days, [32, 40, 44, 47, 48]);
    // A sweep that was away for long tells each moment all the same.
    let late = uploaded(&*store, &zone, csr, 90, start).await;
    store.tell_time(start.plus(DAY * 95)).await.unwrap();
    assert_eq!(told(&*store, hook).await.iter().filter(|(_, id)| *id == late.to_string()).count(), 6);
}

#[tokio::test]
async fn an_active_custom_csr_without_a_certificate_is_stale_once() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let hook = webhook(&*store, &zone, &["custom_csr.stale"]).await;
    let (stale, used, pending) = (active(&*store, &zone, 1).await, active(&*store, &zone, 2).await, accept(&*store, &zone).await);
    assert_eq!(store.accept_certificate(&certificate(&zone, chain(used, 2, now().plus(DAY * 90))), &actor(), now()).await.unwrap(), None);
    store.tell_time(now().plus(STALE_AFTER).minus(DAY)).await.unwrap();
    assert_eq!(told(&*store, hook).await, []);
    for _ in 0..2 {
        store.tell_time(now().plus(STALE_AFTER + DAY)).await.unwrap();
    }
    assert_eq!(told(&*store, hook).await, [event("custom_csr.stale", &stale)]);
    assert_ne!(pending, stale);
}

#[tokio::test]
async fn a_custom_csr_that_had_a_certificate_is_stale_when_it_has_had_none_for_as_long() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let hook = webhook(&*store, &zone, &["custom_csr.stale"]).await;
    let (deleted, moved, other) = (active(&*store, &zone, 1).await, active(&*store, &zone, 2).await, active(&*store, &zone, 3).await);
    let mut ids = Vec::new();
    for (csr, spki) in [(deleted, 1), (moved, 2)] {
        let new = certificate(&zone, chain(csr, spki, now().plus(DAY * 90)));
        assert_eq!(store.accept_certificate(&new, &actor(), now()).await.unwrap(), None);
        ids.push(new.id);
    }
    // They are old.
    let micros = (STALE_AFTER + DAY).as_micros();
    test.execute(&format!("UPDATE custom_csrs SET created_at = created_at - {micros} WHERE id <> '{other}'")).await;
    assert!(store.delete_certificate(&zone, ids[0], &actor(), now()).await.unwrap());
    let change = CertificateChange { chain: Some(chain(other, 3, now().plus(DAY * 90))), ..CertificateChange::default() };
    assert!(matches!(store.replace_certificate(&zone, ids[1], &change, &actor(), now()).await.unwrap(), Replacement::Replaced(_)));
    store.tell_time(now().plus(STALE_AFTER).minus(DAY)).await.unwrap();
    assert_eq!(told(&*store, hook).await, []);
    store.tell_time(now().plus(STALE_AFTER + DAY)).await.unwrap();
    let told: BTreeSet<_> = told(&*store, hook).await.into_iter().collect();
    assert_eq!(told, BTreeSet::from([deleted, moved].map(|csr| event("custom_csr.stale", &csr))));
    assert_eq!(store.delete_custom_csr(&zone, deleted, &actor(), now()).await.unwrap(), Deletion::Deleted);
    assert_eq!(test.number("SELECT COUNT(*) FROM freed_custom_csrs").await, 1);
}

#[tokio::test]
async fn a_delivery_is_taken_by_one_until_it_ends_or_its_lease_does_and_its_webhook_is_woken_for_once() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let hook = webhook(&*store, &zone, &["*"]).await;
    active(&*store, &zone, 1).await;
    assert_eq!(store.wake_deliveries(now()).await.unwrap(), 1);
    assert_eq!(store.wake_deliveries(now()).await.unwrap(), 0, "its job lives");
    let at = now();
    let taken = store.take_due(hook, 5, LEASE, at).await.unwrap();
    assert_eq!((taken.len(), taken[0].attempts), (1, 0));
    assert!(store.take_due(hook, 5, LEASE, at.plus(LEASE).minus(Duration::from_secs(1))).await.unwrap().is_empty());
    assert_eq!(store.take_due(hook, 5, LEASE, at.plus(LEASE)).await.unwrap().len(), 1, "whoever took it was killed");
    let next = at.plus(Duration::from_secs(5));
    store.end_attempt(hook, &taken[0], Attempt::Again(next), Some(500), at).await.unwrap();
    let listed = store.list_deliveries(&zone, hook).await.unwrap().unwrap();
    let [delivery] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((delivery.attempts, delivery.response_status, delivery.next_attempt_at), (1, Some(500), Some(next)));
    store.end_attempt(hook, &taken[0], Attempt::Delivered, Some(204), at).await.unwrap();
    // Late, and ended already.
    store.end_attempt(hook, &taken[0], Attempt::GivenUp, None, at).await.unwrap();
    let delivery = &store.list_deliveries(&zone, hook).await.unwrap().unwrap()[0];
    assert_eq!((delivery.status, delivery.attempts, delivery.next_attempt_at), (DeliveryStatus::Delivered, 2, None));
}

#[tokio::test]
async fn an_attempt_under_way_when_its_webhook_is_disabled_counts_with_its_answer_and_is_not_repeated() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 40).await;
    let hook = webhook(&*store, &zone, &["*"]).await;
    for spki in 0..4 {
        active(&*store, &zone, spki).await;
    }
    let taken = store.take_due(hook, 4, LEASE, now()).await.unwrap();
    let ends = [(Attempt::Gone, 410), (Attempt::Gone, 410), (Attempt::Again(now()), 500), (Attempt::Delivered, 204)];
    for (due, (attempt, status)) in taken.iter().zip(ends) {
        store.end_attempt(hook, due, attempt, Some(status), now()).await.unwrap();
        // A second worker that had it too, since the first took long.
        store.end_attempt(hook, due, Attempt::GivenUp, None, now()).await.unwrap();
    }
    let shown = store.list_deliveries(&zone, hook).await.unwrap().unwrap();
    let expected =
        [(DeliveryStatus::Failed, 410), (DeliveryStatus::Failed, 410), (DeliveryStatus::Failed, 500), (DeliveryStatus::Delivered, 204)];
    for (due, (status, answer)) in taken.iter().zip(expected) {
        let Delivery { attempts, status: shown_as, response_status, next_attempt_at, .. } =
            shown.iter().find(|delivery| delivery.id == due.id).unwrap();
        assert_eq!((*attempts, *shown_as, *response_status, *next_attempt_at), (1, status, Some(answer), None));
    }
}

#[tokio::test]
async fn a_webhook_that_is_gone_or_fails_ten_times_in_a_row_is_disabled_with_the_reason_until_it_is_enabled() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 40).await;
    let hook = webhook(&*store, &zone, &["*"]).await;
    for spki in 0..30 {
        active(&*store, &zone, spki).await;
    }
    let end = async |attempts: &[Attempt]| {
        for attempt in attempts {
            let taken = store.take_due(hook, 1, LEASE, now()).await.unwrap();
            store.end_attempt(hook, &taken[0], *attempt, None, now()).await.unwrap();
        }
        store.find_webhook(&zone, hook).await.unwrap().unwrap()
    };
    let almost = vec![Attempt::GivenUp; GIVEN_UP_MAX as usize - 1];
    assert!(end(&almost).await.enabled);
    assert!(end(&[Attempt::Delivered]).await.enabled, "one that is taken begins a new row");
    assert!(end(&almost).await.enabled);
    let disabled = end(&[Attempt::GivenUp]).await;
    assert!(!disabled.enabled && disabled.disabled_reason.unwrap().starts_with("10 deliveries"));
    assert!(due(&*store, hook).await.is_empty(), "what was pending is given up");
    active(&*store, &zone, 31).await;
    assert!(due(&*store, hook).await.is_empty(), "and nothing new is recorded");
    let enable = WebhookChange { enabled: Some(true), ..WebhookChange::default() };
    let enabled = store.edit_webhook(&zone, hook, &enable, &actor(), now()).await.unwrap().unwrap();
    assert_eq!((enabled.enabled, enabled.disabled_reason), (true, None));
    active(&*store, &zone, 32).await;
    let gone = end(&[Attempt::Gone]).await;
    assert!(!gone.enabled && gone.disabled_reason.unwrap().contains("410"));
    assert_eq!(store.ping_webhook(&zone, hook, "ping-1", now()).await.unwrap().unwrap().event, "ping");
    assert_eq!(due(&*store, hook).await.len(), 1, "a ping is told all the same");
    assert!(store.delete_webhook(&zone, hook, &actor(), now()).await.unwrap());
    assert_eq!((store.list_deliveries(&zone, hook).await.unwrap(), store.find_webhook(&zone, hook).await.unwrap()), (None, None));
}

#[tokio::test]
async fn the_last_hundred_deliveries_are_kept_and_so_is_what_is_pending() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let hook = webhook(&*store, &zone, &["*"]).await;
    for number in 0..DELIVERIES_SHOWN + 20 {
        store.ping_webhook(&zone, hook, &format!("{number:04}"), Timestamp::from_micros(i64::from(number) + 1)).await.unwrap();
    }
    assert_eq!(store.purge_deliveries().await.unwrap(), 0);
    test.execute("UPDATE deliveries SET status = 'delivered', next_attempt_at = NULL WHERE id > '0004'").await;
    assert_eq!(store.purge_deliveries().await.unwrap(), 15);
    assert_eq!(test.number("SELECT COUNT(*) FROM deliveries").await, i64::from(DELIVERIES_SHOWN) + 5);
    let listed = store.list_deliveries(&zone, hook).await.unwrap().unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str()), (DELIVERIES_SHOWN as usize, "0119"));
}

#[tokio::test]
async fn a_scope_has_ten_webhooks_at_most_if_it_is_granted_and_sees_no_others() {
    let (_test, store) = database().await;
    let mine = granted(&*store, 10).await;
    let mut all = Vec::new();
    for _ in 0..WEBHOOKS_MAX {
        all.push(webhook(&*store, &mine, &["*"]).await);
    }
    assert_eq!(create(&*store, &mine, &["*"]).await, WebhookCreation::TooMany);
    assert_eq!(create(&*store, &zone("unheard-of"), &["*"]).await, WebhookCreation::NotGranted);
    let other = account("a1");
    store.grant_scope(&other, None, None, &actor(), now()).await.unwrap();
    webhook(&*store, &other, &["*"]).await;
    let listed: Vec<_> = store.list_webhooks(&mine).await.unwrap().into_iter().map(|webhook| webhook.id).collect();
    assert_eq!((listed.len(), store.list_webhooks(&other).await.unwrap().len()), (all.len(), 1));
    let id = all[0];
    assert_eq!(store.find_webhook(&other, id).await.unwrap(), None);
    assert_eq!(store.list_deliveries(&other, id).await.unwrap(), None);
    assert_eq!(store.ping_webhook(&other, id, "p", now()).await.unwrap(), None);
    let change = WebhookChange { enabled: Some(false), ..WebhookChange::default() };
    assert_eq!(store.edit_webhook(&other, id, &change, &actor(), now()).await.unwrap(), None);
    assert!(!store.delete_webhook(&other, id, &actor(), now()).await.unwrap());
    assert!(store.find_webhook(&mine, id).await.unwrap().unwrap().enabled);
}

#[tokio::test]
async fn the_key_pair_of_secrets_is_sealed_anew_and_keeps_its_master_key_until_then() {
    let (_test, store) = database().await;
    key(&*store).await;
    let sealed = async || store.count_sealed().await.unwrap().iter().map(|key| key.sealed).collect::<Vec<_>>();
    assert_eq!(sealed().await, [1]);
    assert!(store.use_master_key("fedcba9876543210", &actor(), now()).await.unwrap());
    assert_eq!(store.retire_master_key(super::MASTER_KEY, &actor(), now()).await.unwrap(), Retirement::Needed);
    let [record] = &store.list_sealed_by(super::MASTER_KEY, None, 10).await.unwrap()[..] else { panic!() };
    assert_eq!((record.binding().table, record.binding().column), ("webhook_keys", "sealed_private_key"));
    let resealed = Resealed { record: record.clone(), master_key_id: "fedcba9876543210".to_owned(), resealed: vec![9; 9] };
    assert_eq!(store.reseal(&[resealed]).await.unwrap(), 1);
    let key = store.find_webhook_key().await.unwrap().unwrap();
    assert_eq!((key.sealed_private_key, sealed().await), (vec![9; 9], vec![0, 1]));
    assert_eq!(store.retire_master_key(super::MASTER_KEY, &actor(), now()).await.unwrap(), Retirement::Retired);
}
