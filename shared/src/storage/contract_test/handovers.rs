//! Hand-over links: each shows one custom CSR and takes one certificate.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    accept,
    certificates::{active, certificate, chain, tomorrow},
    database, granted,
};
use crate::{
    audit::{Action, Entry},
    custom_csr::Status,
    handover::{NewHandover, Secret},
    ids::{CustomCsrId, HandoverId, Scope},
    storage::{
        AuditQuery, CertificateChange, CertificateRefusal, Deletion, HANDOVER_KEPT_AFTER, HANDOVERS_KEPT, HandoverCreation,
        MAX_HANDOVERS_OF_CSR, NewCertificate, Replacement, Store,
    },
    testing::{account, actor, now, zone},
};

fn link(csr: CustomCsrId) -> NewHandover {
    let expires_at = now().plus(Duration::from_hours(1));
    NewHandover {
        id: HandoverId::new(now()),
        custom_csr_id: csr,
        replaces: None,
        secret: Secret::generate().unwrap(),
        note: Some("Dear IT".into()),
        expires_at,
    }
}

async fn made(store: &dyn Store, scope: &Scope, csr: CustomCsrId) -> NewHandover {
    let new = link(csr);
    assert_eq!(store.create_handover(scope, &new, &actor(), now()).await.unwrap(), HandoverCreation::Created);
    new
}

fn through(new: NewCertificate, link: &NewHandover) -> NewCertificate {
    NewCertificate { handover: Some(link.id), ..new }
}

/// The audit entries of links.
async fn audited(store: &dyn Store) -> Vec<Entry> {
    let mut run = store.read_audit(AuditQuery::default()).await.unwrap();
    let (mut all, mut entries) = (Vec::new(), run.next().await.unwrap());
    while !entries.is_empty() {
        all.extend(entries);
        entries = run.next().await.unwrap();
    }
    all.retain(|entry| entry.resource.starts_with("handover/"));
    all
}

/// What was done to links.
async fn actions(store: &dyn Store) -> Vec<(String, String)> {
    audited(store).await.into_iter().map(|entry| (entry.action, entry.resource)).collect()
}

#[tokio::test]
async fn a_link_is_found_by_its_secret_and_listed_with_its_custom_csr_alone() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let (csr, other) = (active(&*store, &zone, 1).await, active(&*store, &zone, 2).await);
    let new = made(&*store, &zone, csr).await;
    let (found, scope) = store.find_handover(&new.secret).await.unwrap().unwrap();
    assert_eq!((found.id, found.custom_csr_id, found.note.as_deref(), scope), (new.id, csr, Some("Dear IT"), zone.clone()));
    assert!(found.is_open(now()) && !found.is_open(new.expires_at));
    assert_eq!(store.find_handover(&Secret::generate().unwrap()).await.unwrap(), None);
    let newer = made(&*store, &zone, csr).await;
    let ids: Vec<_> = store.list_handovers(&zone, csr).await.unwrap().into_iter().map(|handover| handover.id).collect();
    assert_eq!(ids, [newer.id, new.id], "the newest first");
    assert_eq!(store.list_handovers(&zone, other).await.unwrap(), []);
}

#[tokio::test]
async fn only_an_active_custom_csr_of_the_scope_gets_a_link_and_no_more_than_it_may_have_open() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let pending = accept(&*store, &scope).await;
    let create = async |scope: &Scope, csr| store.create_handover(scope, &link(csr), &actor(), now()).await.unwrap();
    assert_eq!(create(&scope, pending).await, HandoverCreation::NotActive(Status::Pending));
    assert_eq!(create(&scope, CustomCsrId::new(now())).await, HandoverCreation::NotFound);
    let csr = active(&*store, &scope, 1).await;
    assert_eq!(create(&zone("other"), csr).await, HandoverCreation::NotFound);
    let first = made(&*store, &scope, csr).await;
    for _ in 1..MAX_HANDOVERS_OF_CSR {
        made(&*store, &scope, csr).await;
    }
    assert_eq!(create(&scope, csr).await, HandoverCreation::TooMany);
    assert!(store.revoke_handover(&scope, csr, first.id, &actor(), now()).await.unwrap());
    assert_eq!(create(&scope, csr).await, HandoverCreation::Created);
    assert!(store.revoke_scope(&scope, &actor(), now()).await.unwrap());
    assert_eq!(create(&scope, csr).await, HandoverCreation::NotGranted);
}

#[tokio::test]
async fn of_certificates_that_come_through_a_link_at_once_one_is_stored() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let new = made(&*store, &zone, csr).await;
    let mut uploads = JoinSet::new();
    for _ in 0..8 {
        let (store, certificate) = (Arc::clone(&store), through(certificate(&zone, chain(csr, 1, tomorrow())), &new));
        uploads.spawn(async move { store.accept_certificate(&certificate, &actor(), now()).await.unwrap() });
    }
    let refusals = uploads.join_all().await;
    assert_eq!(refusals.iter().filter(|refusal| refusal.is_none()).count(), 1);
    assert!(refusals.iter().flatten().all(|refusal| *refusal == CertificateRefusal::HandoverEnded), "{refusals:?}");
    assert!(store.find_handover(&new.secret).await.unwrap().unwrap().0.used_at.is_some());
    let resource = format!("handover/{}", new.id);
    let done = [Action::HandoverCreate, Action::HandoverUse].map(|action| (action.as_str().to_owned(), resource.clone()));
    assert_eq!(actions(&*store).await, done);
}

#[tokio::test]
async fn a_refused_certificate_leaves_a_link_open_and_a_link_that_is_over_takes_none() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let (used, revoked) = (made(&*store, &zone, csr).await, made(&*store, &zone, csr).await);
    let upload = async |spki, link: &NewHandover, at| {
        let new = through(certificate(&zone, chain(csr, spki, tomorrow())), link);
        store.accept_certificate(&new, &actor(), at).await.unwrap()
    };
    assert_eq!(upload(2, &used, now()).await, Some(CertificateRefusal::CsrGone), "for another key");
    assert_eq!(upload(1, &used, used.expires_at).await, Some(CertificateRefusal::HandoverEnded));
    assert_eq!(upload(1, &used, now()).await, None);
    assert_eq!(upload(1, &used, now()).await, Some(CertificateRefusal::HandoverEnded));
    assert!(store.revoke_handover(&zone, csr, revoked.id, &actor(), now()).await.unwrap());
    assert_eq!(upload(1, &revoked, now()).await, Some(CertificateRefusal::HandoverEnded));
    assert_eq!(store.find_custom_csr(&zone, csr).await.unwrap().unwrap().certificate_ids.len(), 1);
}

#[tokio::test]
async fn a_link_renews_a_certificate_in_place_once() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let (old, new) = (active(&*store, &zone, 1).await, active(&*store, &zone, 2).await);
    let present = certificate(&zone, chain(old, 1, tomorrow()));
    assert_eq!(store.accept_certificate(&present, &actor(), now()).await.unwrap(), None);
    let link = NewHandover { replaces: Some(present.id), ..link(new) };
    assert_eq!(store.create_handover(&zone, &link, &actor(), now()).await.unwrap(), HandoverCreation::Created);
    assert_eq!(store.find_handover(&link.secret).await.unwrap().unwrap().0.replaces, Some(present.id));
    let renew = async |spki| {
        let change =
            CertificateChange { chain: Some(chain(new, spki, tomorrow())), handover: Some(link.id), ..CertificateChange::default() };
        store.replace_certificate(&zone, present.id, &change, &actor(), now()).await.unwrap()
    };
    assert_eq!(renew(1).await, Replacement::Refused(CertificateRefusal::CsrGone), "for another key");
    let Replacement::Replaced(renewed) = renew(2).await else { panic!("it fits") };
    assert_eq!((renewed.id, renewed.custom_csr_id), (present.id, new));
    assert_eq!(renew(2).await, Replacement::Refused(CertificateRefusal::HandoverEnded));
    assert_eq!(store.find_certificate(&zone, present.id).await.unwrap().unwrap().chain, renewed.chain, "it stays");
}

#[tokio::test]
async fn what_becomes_of_an_accounts_link_is_recorded_in_the_account_where_it_began() {
    let (_test, store) = database().await;
    let (zone, account) = (granted(&*store, 10).await, account("a1"));
    store.grant_scope(&account, None, Some(5), &actor(), now()).await.unwrap();
    store.grant_scope(&zone, Some(account.id()), Some(5), &actor(), now()).await.unwrap();
    let (old, new) = (active(&*store, &account, 1).await, active(&*store, &account, 2).await);
    let present = certificate(&zone, chain(old, 1, tomorrow()));
    assert_eq!(store.accept_certificate(&present, &actor(), now()).await.unwrap(), None);
    let link = NewHandover { replaces: Some(present.id), ..link(new) };
    assert_eq!(store.create_handover(&account, &link, &actor(), now()).await.unwrap(), HandoverCreation::Created);
    let change = CertificateChange { chain: Some(chain(new, 2, tomorrow())), handover: Some(link.id), ..CertificateChange::default() };
    let replaced = store.replace_certificate(&zone, present.id, &change, &actor(), now()).await.unwrap();
    assert!(matches!(replaced, Replacement::Replaced(_)));
    let entries = audited(&*store).await;
    assert_eq!(entries.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["handover_create", "handover_use"]);
    assert!(entries.iter().all(|entry| entry.scope == (&account).into()), "{entries:?}");
}

#[tokio::test]
async fn of_the_links_that_are_over_the_newest_are_kept_and_none_for_ever() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let csr = active(&*store, &scope, 1).await;
    let open = made(&*store, &scope, csr).await;
    for _ in 0..=HANDOVERS_KEPT {
        let new = made(&*store, &scope, csr).await;
        assert!(store.revoke_handover(&scope, csr, new.id, &actor(), now()).await.unwrap());
    }
    let last = made(&*store, &scope, csr).await;
    let kept = store.list_handovers(&scope, csr).await.unwrap();
    assert_eq!(kept.len(), HANDOVERS_KEPT as usize + 1, "and the one that is open, though it is the oldest");
    assert_eq!((kept[0].id, kept.last().unwrap().id), (last.id, open.id));
    let end = open.expires_at.plus(HANDOVER_KEPT_AFTER);
    assert_eq!(store.purge(now(), now(), end).await.unwrap().handovers, 0);
    assert_eq!(store.purge(now(), now(), end.plus(Duration::from_hours(1))).await.unwrap().handovers, u64::from(HANDOVERS_KEPT) + 1);
    assert_eq!(store.list_handovers(&scope, csr).await.unwrap(), []);
}

#[tokio::test]
async fn a_link_is_opened_and_revoked_once_and_goes_with_its_custom_csr() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let csr = active(&*store, &scope, 1).await;
    let new = made(&*store, &scope, csr).await;
    for _ in 0..2 {
        store.open_handover(new.id, &scope, &actor(), now()).await.unwrap();
    }
    assert!(!store.revoke_handover(&scope, csr, HandoverId::new(now()), &actor(), now()).await.unwrap());
    assert!(!store.revoke_handover(&zone("other"), csr, new.id, &actor(), now()).await.unwrap());
    for _ in 0..2 {
        assert!(store.revoke_handover(&scope, csr, new.id, &actor(), now()).await.unwrap());
    }
    let done: Vec<_> = actions(&*store).await.into_iter().map(|(action, _)| action).collect();
    assert_eq!(done, [Action::HandoverCreate, Action::HandoverOpen, Action::HandoverRevoke].map(Action::as_str));
    assert_eq!(store.delete_custom_csr(&scope, csr, &actor(), now()).await.unwrap(), Deletion::Deleted);
    assert_eq!(store.find_handover(&new.secret).await.unwrap(), None);
}
