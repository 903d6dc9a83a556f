//! Custom certificates, and the custom CSRs that they keep from being deleted.

use std::{sync::Arc, time::Duration};

use super::{accept, database, generated, granted};
use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    model::{BundleMethod, CertificateChain, CertificateStatus, CertificateType, LAST_SECOND, Status},
    storage::{CertificateChange, CertificateQuery, Deletion, NewCertificate, NewChain, Replacement, StartedExport, Store},
    testing::{account, actor, now, zone},
    x509::edit::Edit,
};

fn tomorrow() -> Timestamp {
    now().plus(Duration::from_hours(24))
}

fn chain(custom_csr_id: CustomCsrId, spki: u8, not_after: Timestamp) -> NewChain {
    let chain = CertificateChain {
        pem: "-----BEGIN CERTIFICATE-----\n".into(),
        hosts: vec!["www.foo.com".into()],
        issuer: "Some CA".into(),
        signature: "SHA256WithRSA".into(),
        not_after,
    };
    NewChain { custom_csr_id, spki_sha256: [spki; 32], chain }
}

fn certificate(zone: &Scope, chain: NewChain) -> NewCertificate {
    NewCertificate {
        id: CustomCertificateId::new(now()),
        zone: zone.clone(),
        chain,
        bundle_method: BundleMethod::Ubiquitous,
        certificate_type: CertificateType::SniCustom,
    }
}

/// An active custom CSR whose public key has this hash.
async fn active(store: &dyn Store, scope: &Scope, spki: u8) -> CustomCsrId {
    let id = accept(store, scope).await;
    assert!(store.complete_generation(id, &generated(spki), now()).await.unwrap());
    id
}

async fn upload(store: &dyn Store, zone: &Scope, chain: NewChain) -> CustomCertificateId {
    let new = certificate(zone, chain);
    assert!(store.accept_certificate(&new, &actor(), now()).await.unwrap());
    new.id
}

fn query(status: Option<CertificateStatus>) -> CertificateQuery {
    CertificateQuery { page: 1, per_page: 5, status, now: now() }
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
        assert!(!store.accept_certificate(&certificate(&zone, bad), &actor(), now()).await.unwrap());
    }
    let found = store.find_usable_csr(&zone, csr).await.unwrap().unwrap();
    assert_eq!((found.status, found.spki_sha256), (Status::Active, Some([1; 32])));
    assert_eq!(store.find_usable_csr(&zone, pending).await.unwrap().unwrap().spki_sha256, None);
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
    assert!(store.find_usable_csr(&mine, csr).await.unwrap().is_some());
    assert!(store.find_usable_csr(&other, csr).await.unwrap().is_none());
    let stranger = active(&*store, &of_stranger, 2).await;
    assert!(store.find_usable_csr(&mine, stranger).await.unwrap().is_none());

    let id = upload(&*store, &mine, chain(csr, 1, tomorrow())).await;
    assert_eq!(store.find_custom_csr(&of_account, csr).await.unwrap().unwrap().certificate_ids, [id]);
    assert!(store.find_certificate(&of_account, id).await.unwrap().is_none());
    assert_eq!(store.delete_custom_csr(&of_account, csr, &actor(), now()).await.unwrap(), Deletion::InUse);
    store.revoke_scope(&mine, &actor(), now()).await.unwrap();
    assert!(store.find_usable_csr(&mine, csr).await.unwrap().is_none(), "a revoked zone has no account");
}

#[tokio::test]
async fn a_certificate_moves_to_another_custom_csr_under_its_id_and_frees_the_old_one() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let (old, new) = (active(&*store, &zone, 1).await, active(&*store, &zone, 2).await);
    let id = upload(&*store, &zone, chain(old, 1, tomorrow())).await;
    let change =
        CertificateChange { chain: Some(chain(new, 2, tomorrow())), bundle_method: Some(BundleMethod::Force), certificate_type: None };
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
        Replacement::CsrGone
    );

    let settings = CertificateChange { chain: None, bundle_method: Some(BundleMethod::Optimal), certificate_type: None };
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
    made.sort();
    let rest = store.list_all_certificates(Some(made[4]), 50).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.id).collect::<Vec<_>>(), made[5..]);
    assert_eq!(store.list_all_certificates(None, 2).await.unwrap().len(), 2);
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
            Deletion::Deleted => assert_eq!(stored, [false, false]),
            Deletion::InUse => assert!(stored.contains(&true)),
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
