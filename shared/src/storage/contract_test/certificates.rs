//! Custom certificates, and the custom CSRs that they keep from being deleted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use super::{accept, database, generated, granted};
use crate::{
    bodies::edit::Edit,
    clock::Timestamp,
    custom_certificate::{BundleMethod, CertificateChain, CertificateStatus, CertificateType, LAST_SECOND, LeafDetails},
    custom_csr::Status,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    storage::{
        CertificateChange, CertificateQuery, CertificateRefusal, Deletion, MAX_CERTIFICATES_OF_CSR, NewCertificate, NewChain, Replacement,
        StartedExport, Store,
    },
    testing::{account, actor, now, zone},
};

pub(super) fn tomorrow() -> Timestamp {
    now().plus(Duration::from_hours(24))
}

/// A chain of another leaf each time, and the same issuer.
pub(super) fn chain(custom_csr_id: CustomCsrId, spki: u8, not_after: Timestamp) -> NewChain {
    static LEAVES: AtomicU32 = AtomicU32::new(0);
    let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let chain = CertificateChain {
        pem: block(&LEAVES.fetch_add(1, Ordering::Relaxed).to_string()) + &block("issuer"),
        hosts: vec!["www.foo.com".into()],
        issuer: "Some CA".into(),
        signature: "SHA256WithRSA".into(),
        not_after,
        leaf: LeafDetails { not_before: now(), serial_number: "0a".into(), fingerprint_sha256: "ff".into() },
    };
    NewChain { custom_csr_id, spki_sha256: [spki; 32], chain }
}

pub(super) fn certificate(zone: &Scope, chain: NewChain) -> NewCertificate {
    NewCertificate {
        id: CustomCertificateId::new(now()),
        zone: zone.clone(),
        chain,
        bundle_method: BundleMethod::Ubiquitous,
        certificate_type: CertificateType::SniCustom,
        priority: 7,
        idempotency_key: None,
        handover: None,
    }
}

/// An active custom CSR whose public key has this hash.
pub(super) async fn active(store: &dyn Store, scope: &Scope, spki: u8) -> CustomCsrId {
    let id = accept(store, scope).await;
    assert!(store.complete_generation(id, &generated(spki), now()).await.unwrap().is_completed());
    id
}

async fn upload(store: &dyn Store, zone: &Scope, chain: NewChain) -> CustomCertificateId {
    let new = certificate(zone, chain);
    assert_eq!(store.accept_certificate(&new, &actor(), now()).await.unwrap(), None);
    new.id
}

/// Why a new certificate is refused, by the check alone and by what would store it; an accepted one is stored.
async fn refusal(store: &dyn Store, new: &NewCertificate) -> Option<CertificateRefusal> {
    let checked = store.check_certificate(new).await.unwrap();
    assert_eq!(store.accept_certificate(new, &actor(), now()).await.unwrap(), checked);
    checked
}

/// Likewise, for another chain of a certificate.
async fn replacement_refusal(store: &dyn Store, zone: &Scope, id: CustomCertificateId, chain: NewChain) -> Option<CertificateRefusal> {
    let checked = store.check_replacement(zone, id, &chain).await.unwrap();
    let change = CertificateChange { chain: Some(chain), ..CertificateChange::default() };
    match store.replace_certificate(zone, id, &change, &actor(), now()).await.unwrap() {
        Replacement::Refused(refusal) => assert_eq!(checked, Some(refusal)),
        Replacement::Replaced(_) => assert_eq!(checked, None),
        Replacement::NotFound => panic!("it was there"),
    }
    checked
}

fn query(status: Option<CertificateStatus>) -> CertificateQuery {
    CertificateQuery { page: 1, per_page: 5, status, custom_csr_id: None, host: None, expires_before: None, now: now() }
}

#[tokio::test]
async fn a_custom_csr_is_in_use_until_its_last_certificate_is_deleted_or_over() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let not_after = now().minus(Duration::from_hours(1));
    let over = upload(&*store, &zone, chain(csr, 1, not_after)).await;
    let valid = upload(&*store, &zone, chain(csr, 1, tomorrow())).await;
    assert_eq!(store.find_custom_csr(&zone, csr).await.unwrap().unwrap().certificate_ids, [over, valid]);
    assert_eq!(store.delete_custom_csr(&zone, csr, &actor(), now()).await.unwrap(), Deletion::InUse);
    assert!(store.find_certificate(&zone, over).await.unwrap().is_some(), "a refused deletion deletes nothing");

    assert!(store.delete_certificate(&zone, valid, &actor(), now()).await.unwrap());
    assert!(!store.delete_certificate(&zone, valid, &actor(), now()).await.unwrap());
    let last_moment = Timestamp::from_micros(not_after.plus(LAST_SECOND).micros() - 1);
    assert_eq!(store.delete_custom_csr(&zone, csr, &actor(), last_moment).await.unwrap(), Deletion::InUse);
    assert_eq!(store.delete_custom_csr(&zone, csr, &actor(), not_after.plus(LAST_SECOND)).await.unwrap(), Deletion::Deleted);
    assert_eq!(test.number("SELECT COUNT(*) FROM custom_certificates").await, 0);
}

#[tokio::test]
async fn a_certificate_needs_the_active_custom_csr_with_the_key_that_it_was_judged_by() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let pending = accept(&*store, &zone).await;
    let csr = active(&*store, &zone, 1).await;
    for bad in [chain(pending, 1, tomorrow()), chain(csr, 2, tomorrow()), chain(CustomCsrId::new(now()), 1, tomorrow())] {
        assert_eq!(refusal(&*store, &certificate(&zone, bad)).await, Some(CertificateRefusal::CsrGone));
    }
    let found = store.find_usable_csr(&zone, csr, None).await.unwrap().unwrap();
    assert_eq!((found.status, found.spki_sha256), (Status::Active, Some([1; 32])));
    assert_eq!(store.find_usable_csr(&zone, pending, None).await.unwrap().unwrap().spki_sha256, None);
}

#[tokio::test]
async fn a_zone_may_use_the_custom_csrs_of_its_account_and_of_nobody_else() {
    let (_test, store) = database().await;
    let mine = granted(&*store, 10).await;
    let (of_account, of_stranger, other) = (account("a1"), account("a2"), zone("z2"));
    for scope in [&of_account, &of_stranger, &other] {
        store.grant_scope(scope, None, Some(10), &actor(), now()).await.unwrap();
    }
    let csr = active(&*store, &of_account, 1).await;
    assert!(store.find_usable_csr(&mine, csr, None).await.unwrap().is_some());
    assert!(store.find_usable_csr(&other, csr, None).await.unwrap().is_none());
    let stranger = active(&*store, &of_stranger, 2).await;
    assert!(store.find_usable_csr(&mine, stranger, None).await.unwrap().is_none());

    let id = upload(&*store, &mine, chain(csr, 1, tomorrow())).await;
    assert_eq!(store.find_custom_csr(&of_account, csr).await.unwrap().unwrap().certificate_ids, [id]);
    assert_eq!(store.delete_custom_csr(&of_account, csr, &actor(), now()).await.unwrap(), Deletion::InUse);
    store.revoke_scope(&mine, &actor(), now()).await.unwrap();
    assert!(store.find_usable_csr(&mine, csr, None).await.unwrap().is_none(), "a revoked zone gets nothing new");
}

#[tokio::test]
async fn a_right_that_is_revoked_after_the_chain_was_judged_is_asked_for_again() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let of_account = account("a1");
    let grant = async |scope: &Scope, account: Option<&Scope>| {
        store.grant_scope(scope, account.map(Scope::id), Some(10), &actor(), now()).await.unwrap();
    };
    let usable = async |csr| store.find_usable_csr(&zone, csr, None).await.unwrap().is_some();
    let exported = async |id| matches!(store.start_export(id, &actor(), now()).await.unwrap(), StartedExport::Recorded(_));
    grant(&of_account, None).await;
    let (theirs, own) = (active(&*store, &of_account, 1).await, active(&*store, &zone, 2).await);
    let with_theirs = upload(&*store, &zone, chain(theirs, 1, tomorrow())).await;
    let with_own = upload(&*store, &zone, chain(own, 2, tomorrow())).await;
    assert!(usable(theirs).await && exported(with_theirs).await && exported(with_own).await);

    // The account is revoked, or the zone belongs to another one: its custom CSR is none that the zone may use.
    let gone = Some(CertificateRefusal::CsrGone);
    for is_revoked in [true, false] {
        if is_revoked {
            store.revoke_scope(&of_account, &actor(), now()).await.unwrap();
        } else {
            grant(&of_account, None).await;
            grant(&account("a2"), None).await;
            grant(&zone, Some(&account("a2"))).await;
        }
        assert!(!usable(theirs).await && usable(own).await);
        assert_eq!(refusal(&*store, &certificate(&zone, chain(theirs, 1, tomorrow()))).await, gone);
        assert_eq!(replacement_refusal(&*store, &zone, with_theirs, chain(theirs, 1, tomorrow())).await, gone);
        assert_eq!(replacement_refusal(&*store, &zone, with_own, chain(theirs, 1, tomorrow())).await, gone);
        assert!(!exported(with_theirs).await && exported(with_own).await);
    }
    grant(&zone, Some(&of_account)).await;
    assert!(usable(theirs).await && exported(with_theirs).await);

    // The zone is revoked: it gets nothing new, and goes on with what it has.
    store.revoke_scope(&zone, &actor(), now()).await.unwrap();
    for (csr, spki) in [(own, 2), (theirs, 1)] {
        let new = certificate(&zone, chain(csr, spki, tomorrow()));
        assert_eq!(refusal(&*store, &new).await, Some(CertificateRefusal::NotGranted));
    }
    for (id, csr, spki) in [(with_theirs, theirs, 1), (with_own, own, 2)] {
        assert!(store.find_usable_csr(&zone, csr, Some(id)).await.unwrap().is_some());
        assert_eq!(replacement_refusal(&*store, &zone, id, chain(csr, spki, tomorrow())).await, None);
        assert!(exported(id).await);
    }
    assert!(!usable(theirs).await && store.find_usable_csr(&zone, theirs, Some(with_own)).await.unwrap().is_none());
    assert_eq!(replacement_refusal(&*store, &zone, with_own, chain(theirs, 1, tomorrow())).await, gone, "that would be new");
    assert_eq!(test.number("SELECT COUNT(*) FROM custom_certificates").await, 2);

    // The account is revoked too, or the zone comes back without it: then it has no custom CSR of the account any more.
    for is_revoked in [true, false] {
        if is_revoked {
            store.revoke_scope(&of_account, &actor(), now()).await.unwrap();
        } else {
            grant(&of_account, None).await;
            grant(&zone, None).await;
        }
        assert!(store.find_usable_csr(&zone, theirs, Some(with_theirs)).await.unwrap().is_none());
        assert_eq!(replacement_refusal(&*store, &zone, with_theirs, chain(theirs, 1, tomorrow())).await, gone);
        assert_eq!(replacement_refusal(&*store, &zone, with_own, chain(own, 2, tomorrow())).await, None);
        assert!(!exported(with_theirs).await && exported(with_own).await);
    }
}

#[tokio::test]
async fn a_leaf_is_stored_once_in_a_zone_and_renewed_with_itself_at_will() {
    let (_test, store) = database().await;
    let (zone, other, of_account) = (granted(&*store, 10).await, zone("z2"), account("a1"));
    store.grant_scope(&of_account, None, Some(10), &actor(), now()).await.unwrap();
    store.grant_scope(&other, Some(of_account.id()), Some(10), &actor(), now()).await.unwrap();
    let csr = active(&*store, &of_account, 1).await;
    let (leaf, another) = (chain(csr, 1, tomorrow()), chain(csr, 1, tomorrow()));
    let first = upload(&*store, &zone, leaf.clone()).await;
    let stored = Some(CertificateRefusal::Stored(first));
    assert_eq!(refusal(&*store, &certificate(&zone, leaf.clone())).await, stored);
    let mut alone = leaf.clone();
    alone.chain.pem.truncate(alone.chain.pem.find("-----BEGIN CERTIFICATE-----\nissuer").unwrap());
    assert_eq!(refusal(&*store, &certificate(&zone, alone.clone())).await, stored, "the leaf counts, not what follows it");
    assert_eq!(refusal(&*store, &certificate(&other, leaf.clone())).await, None, "in another zone");

    let second = upload(&*store, &zone, another.clone()).await;
    assert_eq!(replacement_refusal(&*store, &zone, second, leaf.clone()).await, stored);
    assert_eq!(replacement_refusal(&*store, &zone, second, another).await, None);
    assert_eq!(replacement_refusal(&*store, &zone, first, alone).await, None);
    assert!(store.delete_certificate(&zone, first, &actor(), now()).await.unwrap());
    assert_eq!(refusal(&*store, &certificate(&zone, leaf)).await, None, "it is free again");
}

#[tokio::test]
async fn of_the_same_leaf_at_once_one_is_stored() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let leaf = chain(csr, 1, tomorrow());
    let upload = |_| {
        let (store, new) = (Arc::clone(&store), certificate(&zone, leaf.clone()));
        async move { store.accept_certificate(&new, &actor(), now()).await.unwrap() }
    };
    let outcomes = (0..8).map(upload).collect::<JoinSet<_>>().join_all().await;
    let page = store.list_certificates(&zone, &query(None)).await.unwrap();
    assert_eq!(page.total, 1);
    let id = page.rows[0].id;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_none()).count(), 1);
    assert!(outcomes.iter().flatten().all(|refusal| *refusal == CertificateRefusal::Stored(id)), "{outcomes:?}");
}

#[tokio::test]
async fn a_custom_csr_has_no_more_certificates_than_it_may_in_all_zones_together_however_many_come_at_once() {
    let (_test, store) = database().await;
    let (zone, other, of_account) = (granted(&*store, 10).await, zone("z2"), account("a1"));
    store.grant_scope(&of_account, None, Some(10), &actor(), now()).await.unwrap();
    store.grant_scope(&other, Some(of_account.id()), Some(10), &actor(), now()).await.unwrap();
    let (csr, another) = (active(&*store, &of_account, 1).await, active(&*store, &of_account, 2).await);
    let elsewhere = upload(&*store, &zone, chain(another, 2, tomorrow())).await;
    let full = Some(CertificateRefusal::CsrFull);
    let moving = CertificateChange { chain: Some(chain(csr, 1, tomorrow())), ..CertificateChange::default() };
    let accept = |number| {
        let zone = if number % 2 == 0 { &zone } else { &other };
        let (store, new) = (Arc::clone(&store), certificate(zone, chain(csr, 1, tomorrow())));
        async move { store.accept_certificate(&new, &actor(), now()).await.unwrap() }
    };
    let uploads = (0..MAX_CERTIFICATES_OF_CSR + 8).map(accept).collect::<JoinSet<_>>();
    let me = actor();
    let (outcomes, moved) = tokio::join!(uploads.join_all(), store.replace_certificate(&zone, elsewhere, &moving, &me, now()));
    let has_moved = moved.unwrap() != Replacement::Refused(CertificateRefusal::CsrFull);
    assert!(outcomes.iter().all(|outcome| outcome.is_none() || *outcome == full), "{outcomes:?}");
    let count = outcomes.iter().filter(|outcome| outcome.is_none()).count() + usize::from(has_moved);
    assert_eq!(count, MAX_CERTIFICATES_OF_CSR as usize);
    let ids = store.find_custom_csr(&of_account, csr).await.unwrap().unwrap().certificate_ids;
    assert_eq!(ids.len(), MAX_CERTIFICATES_OF_CSR as usize);

    // One that stays is not one more; one that comes is.
    let page = store.list_certificates(&other, &query(None)).await.unwrap();
    let present = page.rows[0].id;
    assert_eq!(replacement_refusal(&*store, &other, present, chain(csr, 1, tomorrow())).await, None);
    let comer = if has_moved { upload(&*store, &zone, chain(another, 2, tomorrow())).await } else { elsewhere };
    assert_eq!(replacement_refusal(&*store, &zone, comer, chain(csr, 1, tomorrow())).await, full);
    assert_eq!(replacement_refusal(&*store, &other, present, chain(another, 2, tomorrow())).await, None);
    assert_eq!(replacement_refusal(&*store, &zone, comer, chain(csr, 1, tomorrow())).await, None);
    assert_eq!(refusal(&*store, &certificate(&zone, chain(csr, 1, tomorrow()))).await, full);
}

#[tokio::test]
async fn more_certificates_of_an_earlier_version_than_may_be_are_renewed_all_the_same() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let one = upload(&*store, &zone, chain(csr, 1, tomorrow())).await;
    for _ in 0..MAX_CERTIFICATES_OF_CSR {
        let id = CustomCertificateId::new(now());
        test.execute(&format!(
            "INSERT INTO custom_certificates (id, scope, custom_csr_id, chain_pem, hosts, issuer, signature, not_after, bundle_method, \
             certificate_type, uploaded_at, modified_at) SELECT '{id}', scope, custom_csr_id, 'a chain', hosts, issuer, signature, not_after, \
             bundle_method, certificate_type, uploaded_at, modified_at FROM custom_certificates WHERE id = '{one}'"
        ))
        .await;
    }
    assert_eq!(replacement_refusal(&*store, &zone, one, chain(csr, 1, tomorrow())).await, None);
    assert_eq!(refusal(&*store, &certificate(&zone, chain(csr, 1, tomorrow()))).await, Some(CertificateRefusal::CsrFull));
}

#[tokio::test]
async fn an_account_sees_and_deletes_what_uses_its_custom_csrs_and_nothing_else() {
    let (test, store) = database().await;
    let (zone, other, of_account, stranger) = (granted(&*store, 10).await, zone("z2"), account("a1"), account("a2"));
    for scope in [&of_account, &stranger] {
        store.grant_scope(scope, None, Some(10), &actor(), now()).await.unwrap();
    }
    store.grant_scope(&other, Some(of_account.id()), Some(10), &actor(), now()).await.unwrap();
    let (theirs, own) = (active(&*store, &of_account, 1).await, active(&*store, &zone, 2).await);
    let first = upload(&*store, &zone, chain(theirs, 1, tomorrow())).await;
    let own = upload(&*store, &zone, chain(own, 2, tomorrow())).await;
    let over = upload(&*store, &other, chain(theirs, 1, now().minus(Duration::from_hours(1)))).await;
    let list = async |scope: &Scope, status| {
        let page = store.list_certificates(scope, &query(status)).await.unwrap();
        (page.total, page.rows.into_iter().map(|row| (row.id, row.zone)).collect::<Vec<_>>())
    };
    assert_eq!(list(&of_account, None).await, (2, vec![(over, other.clone()), (first, zone.clone())]));
    assert_eq!(list(&of_account, Some(CertificateStatus::Active)).await, (1, vec![(first, zone.clone())]));
    assert_eq!(list(&zone, None).await, (2, vec![(own, zone.clone()), (first, zone.clone())]));
    assert_eq!(list(&stranger, None).await, (0, Vec::new()));
    assert_eq!(store.find_certificate(&of_account, first).await.unwrap(), store.find_certificate(&zone, first).await.unwrap());
    for (scope, id) in [(&of_account, own), (&stranger, first), (&stranger, own), (&other, first), (&zone, over)] {
        assert!(store.find_certificate(scope, id).await.unwrap().is_none());
        assert!(!store.delete_certificate(scope, id, &actor(), now()).await.unwrap());
    }

    // Whatever became of the rights.
    store.revoke_scope(&zone, &actor(), now()).await.unwrap();
    store.revoke_scope(&of_account, &actor(), now()).await.unwrap();
    for id in [first, over] {
        assert!(store.delete_certificate(&of_account, id, &actor(), now()).await.unwrap());
        assert!(!store.delete_certificate(&of_account, id, &actor(), now()).await.unwrap());
    }
    assert_eq!(list(&of_account, None).await, (0, Vec::new()));
    assert_eq!(store.delete_custom_csr(&of_account, theirs, &actor(), now()).await.unwrap(), Deletion::Deleted);
    for (scope, id) in [(&zone, first), (&other, over)] {
        let entries =
            format!("SELECT COUNT(*) FROM audit WHERE action = 'delete' AND scope = '{scope}' AND resource = 'custom_certificate/{id}'");
        assert_eq!(test.number(&entries).await, 1);
    }
}

#[tokio::test]
async fn a_certificate_moves_to_another_custom_csr_under_its_id_and_frees_the_old_one() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let (old, new) = (active(&*store, &zone, 1).await, active(&*store, &zone, 2).await);
    let id = upload(&*store, &zone, chain(old, 1, tomorrow())).await;
    let change = CertificateChange {
        chain: Some(chain(new, 2, tomorrow())),
        bundle_method: Some(BundleMethod::Force),
        ..CertificateChange::default()
    };
    let Replacement::Replaced(replaced) = store.replace_certificate(&zone, id, &change, &actor(), now()).await.unwrap() else { panic!() };
    assert_eq!((replaced.id, replaced.custom_csr_id, replaced.bundle_method), (id, new, BundleMethod::Force));
    assert_eq!(store.find_certificate(&zone, id).await.unwrap().unwrap(), *replaced);
    assert_eq!(store.delete_custom_csr(&zone, old, &actor(), now()).await.unwrap(), Deletion::Deleted);
    assert_eq!(
        store
            .replace_certificate(
                &zone,
                id,
                &CertificateChange { chain: Some(chain(old, 1, tomorrow())), ..change.clone() },
                &actor(),
                now()
            )
            .await
            .unwrap(),
        Replacement::Refused(CertificateRefusal::CsrGone)
    );

    let settings = CertificateChange { chain: None, bundle_method: Some(BundleMethod::Optimal), ..CertificateChange::default() };
    let Replacement::Replaced(edited) = store.replace_certificate(&zone, id, &settings, &actor(), now()).await.unwrap() else { panic!() };
    assert_eq!((edited.bundle_method, edited.custom_csr_id), (BundleMethod::Optimal, new));
    let nobodys = CustomCertificateId::new(now());
    assert_eq!(store.replace_certificate(&zone, nobodys, &settings, &actor(), now()).await.unwrap(), Replacement::NotFound);
}

#[tokio::test]
async fn a_zone_lists_its_certificates_newest_first_by_status_and_by_page() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let mut made = Vec::new();
    for n in 0..7 {
        let not_after = if n < 2 { now().minus(Duration::from_hours(1)) } else { tomorrow() };
        made.push(upload(&*store, &zone, chain(csr, 1, not_after)).await);
    }
    made.reverse();
    let list = async |query: &CertificateQuery| {
        let page = store.list_certificates(&zone, query).await.unwrap();
        (page.total, page.rows.iter().map(|row| row.id).collect::<Vec<_>>())
    };
    assert_eq!(list(&query(None)).await, (7, made[..5].to_vec()));
    assert_eq!(list(&CertificateQuery { page: 2, ..query(None) }).await, (7, made[5..].to_vec()));
    assert_eq!(list(&CertificateQuery { page: 3, ..query(None) }).await, (7, Vec::new()));
    assert_eq!(list(&query(Some(CertificateStatus::Active))).await, (5, made[..5].to_vec()));
    assert_eq!(list(&query(Some(CertificateStatus::Expired))).await, (2, made[5..].to_vec()));
    assert_eq!(list(&query(Some(CertificateStatus::Pending))).await, (0, Vec::new()));
    let page = store.list_certificates(&zone, &query(None)).await.unwrap();
    assert!(page.rows.iter().all(|row| row.chain.pem.is_empty()), "up to 64 KiB each that no list shows");
    assert!(!store.find_certificate(&zone, made[0]).await.unwrap().unwrap().chain.pem.is_empty());
    made.sort();
    let rest = store.list_all_certificates(Some(made[4]), 50).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.id).collect::<Vec<_>>(), made[5..]);
    assert_eq!(store.list_all_certificates(None, 2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_list_is_of_those_of_a_custom_csr_with_a_host_and_over_before_a_time() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let (one, other) = (active(&*store, &zone, 1).await, active(&*store, &zone, 2).await);
    let end = tomorrow();
    let with = |csr, spki, hosts: &[&str], not_after| {
        let mut new = chain(csr, spki, not_after);
        new.chain.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        new
    };
    let plain = upload(&*store, &zone, with(one, 1, &["a.foo.com", "a_b.foo.com"], end)).await;
    let odd = upload(&*store, &zone, with(other, 2, &["A.Foo.com", "x\"y%z!.foo.com"], end.plus(LAST_SECOND))).await;
    let list = async |query: CertificateQuery| {
        let page = store.list_certificates(&zone, &query).await.unwrap();
        assert_eq!(page.total, page.rows.len() as u64);
        page.rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(list(CertificateQuery { custom_csr_id: Some(one), ..query(None) }).await, [plain]);
    assert_eq!(list(CertificateQuery { custom_csr_id: Some(CustomCsrId::new(now())), ..query(None) }).await, []);
    for (host, expected) in [
        ("a.foo.com", vec![odd, plain]),
        ("a_b.foo.com", vec![plain]),
        ("aab.foo.com", vec![]),
        ("foo.com", vec![]),
        ("x\"y%z!.foo.com", vec![odd]),
        ("y%z!.foo.com", vec![]),
        ("%", vec![]),
    ] {
        assert_eq!(list(CertificateQuery { host: Some(host.to_owned()), ..query(None) }).await, expected, "{host}");
    }
    let before = |time| CertificateQuery { expires_before: Some(time), ..query(None) };
    assert_eq!(list(before(end)).await, []);
    assert_eq!(list(before(end.plus(LAST_SECOND))).await, [plain]);
    assert_eq!(list(CertificateQuery { custom_csr_id: Some(other), ..before(Timestamp::from_micros(i64::MAX)) }).await, [odd]);
}

#[tokio::test]
async fn a_custom_csr_is_found_by_its_key_where_the_zone_may_use_it_while_it_is_active() {
    let (_test, store) = database().await;
    let (zone, elsewhere) = (granted(&*store, 10).await, zone("z2"));
    store.grant_scope(&elsewhere, None, Some(10), &actor(), now()).await.unwrap();
    let csr = active(&*store, &zone, 1).await;
    accept(&*store, &zone).await;
    let find = async |zone: &Scope, spki: u8| store.find_usable_csr_by_key(zone, &[spki; 32]).await.unwrap().map(|csr| csr.id);
    assert_eq!(find(&zone, 1).await, Some(csr));
    assert_eq!(find(&zone, 2).await, None);
    assert_eq!(find(&elsewhere, 1).await, None);
}

#[tokio::test]
async fn an_export_is_recorded_and_gives_the_sealed_key_of_the_certificates_custom_csr() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = upload(&*store, &zone, chain(csr, 1, tomorrow())).await;
    let StartedExport::Recorded(export) = store.start_export(id, &actor(), now()).await.unwrap() else { panic!("not begun") };
    assert_eq!((export.certificate.id, export.sealed.id, export.sealed.spki_sha256), (id, csr, [1; 32]));
    assert_eq!(test.number("SELECT COUNT(*) FROM audit WHERE action = 'export'").await, 1);
    let unknown = store.start_export(CustomCertificateId::new(now()), &actor(), now()).await.unwrap();
    assert!(matches!(unknown, StartedExport::NotFound));
    assert_eq!(test.number("SELECT COUNT(*) FROM audit WHERE action = 'export'").await, 1);
}

#[tokio::test]
async fn uploads_and_the_deletion_of_their_custom_csr_never_leave_one_without_the_other() {
    let (test, store) = database().await;
    let zone = granted(&*store, 1_000).await;
    for round in 0..40 {
        let csr = active(&*store, &zone, round).await;
        let uploading = [0, 1].map(|_| {
            let (store, new) = (Arc::clone(&store), certificate(&zone, chain(csr, round, tomorrow())));
            tokio::spawn(async move { store.accept_certificate(&new, &actor(), now()).await.unwrap() })
        });
        let (deleter, scope) = (Arc::clone(&store), zone.clone());
        let deleting = tokio::spawn(async move { deleter.delete_custom_csr(&scope, csr, &actor(), now()).await.unwrap() });
        let [first, second] = uploading;
        let stored = [first.await.unwrap(), second.await.unwrap()];
        match deleting.await.unwrap() {
            Deletion::Deleted => assert_eq!(stored, [Some(CertificateRefusal::CsrGone); 2]),
            Deletion::InUse => assert!(stored.contains(&None)),
            Deletion::NotFound => panic!("it was there"),
        }
    }
    let orphans = "SELECT COUNT(*) FROM custom_certificates WHERE custom_csr_id NOT IN (SELECT id FROM custom_csrs)";
    assert_eq!(test.number(orphans).await, 0);
}

#[tokio::test]
async fn new_words_on_a_custom_csr_are_found_and_cost_nothing_else() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let before = store.find_custom_csr(&zone, csr).await.unwrap().unwrap();
    let edit = Edit { name: Some(Some("Till 4".into())), description: None };
    let after = store.edit_custom_csr(&zone, csr, &edit, &actor(), now()).await.unwrap().unwrap();
    assert_eq!((after.request.name.as_deref(), &after.csr_pem), (Some("Till 4"), &before.csr_pem));
    assert!(after.updated_at > before.updated_at);
    let found = async |search: &str| {
        let query = crate::storage::ListQuery { search: Some(search.into()), ..super::query() };
        store.list_custom_csrs(&zone, &query).await.unwrap().total
    };
    assert_eq!((found("till 4").await, found("shop").await, found("www.foo").await), (1, 0, 1));
    let cleared = Edit { name: Some(None), description: Some(Some("words".into())) };
    let after = store.edit_custom_csr(&zone, csr, &cleared, &actor(), now()).await.unwrap().unwrap();
    assert_eq!((after.request.name, after.request.description.as_deref()), (None, Some("words")));
    assert_eq!(found("till").await, 0);
    assert!(store.edit_custom_csr(&account("a1"), csr, &edit, &actor(), now()).await.unwrap().is_none());
}
