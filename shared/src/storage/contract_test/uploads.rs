//! Uploads with an Idempotency-Key: stored once, however often and in whatever order they come.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    accept_new,
    certificates::{active, certificate, chain, tomorrow},
    database, granted,
};
use crate::{
    custom_csr::KeyType,
    storage::{Acceptance, CertificateRefusal, IDEMPOTENCY_KEY_LIFE, IdempotencyKey, NewCertificate, Repeat},
    testing::{account, actor, new_custom_csr, now},
};

fn key(key: u8, body: u8) -> IdempotencyKey {
    IdempotencyKey { key_sha256: vec![key; 32], body_sha256: vec![body; 32] }
}

fn with_key(new: NewCertificate, key: IdempotencyKey) -> NewCertificate {
    NewCertificate { idempotency_key: Some(key), ..new }
}

#[tokio::test]
async fn a_key_of_an_upload_is_found_by_its_body_in_its_zone_until_it_is_too_old() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let new = with_key(certificate(&zone, chain(csr, 1, tomorrow())), key(1, 1));
    let at = now();
    assert_eq!(store.find_upload(&zone, &key(1, 1), at).await.unwrap(), None);
    assert_eq!(store.accept_certificate(&new, &actor(), at).await.unwrap(), None);

    let find = async |body, later| store.find_upload(&zone, &key(1, body), at.plus(later)).await.unwrap();
    assert_eq!(find(1, Duration::ZERO).await, Some(Repeat::Replayed(new.id)));
    assert_eq!(find(2, IDEMPOTENCY_KEY_LIFE).await, Some(Repeat::KeyReused));
    assert_eq!(find(1, IDEMPOTENCY_KEY_LIFE + Duration::from_micros(1)).await, None);
    assert_eq!(store.find_upload(&account("z1"), &key(1, 1), at).await.unwrap(), None);

    // It outlives what it made.
    assert!(store.delete_certificate(&zone, new.id, &actor(), now()).await.unwrap());
    assert_eq!(find(1, Duration::ZERO).await, Some(Repeat::Replayed(new.id)));
}

#[tokio::test]
async fn an_upload_that_is_refused_leaves_its_key_free() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let refused = with_key(certificate(&zone, chain(csr, 2, tomorrow())), key(1, 1));
    assert_eq!(store.accept_certificate(&refused, &actor(), now()).await.unwrap(), Some(CertificateRefusal::CsrGone));
    assert_eq!(store.find_upload(&zone, &key(1, 1), now()).await.unwrap(), None);
    let good = with_key(certificate(&zone, chain(csr, 1, tomorrow())), key(1, 2));
    assert_eq!(store.accept_certificate(&good, &actor(), now()).await.unwrap(), None);
}

#[tokio::test]
async fn of_the_same_upload_many_times_at_once_one_is_stored() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let chain = chain(csr, 1, tomorrow());
    let mut uploads = JoinSet::new();
    for _ in 0..16 {
        let (store, new) = (Arc::clone(&store), with_key(certificate(&zone, chain.clone()), key(1, 1)));
        uploads.spawn(async move { store.accept_certificate(&new, &actor(), now()).await.unwrap() });
    }
    let outcomes = uploads.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_none()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().flatten().all(|refusal| *refusal == CertificateRefusal::KeyTaken), "{outcomes:?}");
    assert_eq!(test.number("SELECT COUNT(*) FROM custom_certificates").await, 1);
}

#[tokio::test]
async fn a_key_serves_an_upload_or_a_custom_csr_and_another_use_of_it_is_refused() {
    let (test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let upload = |n| with_key(certificate(&zone, chain(csr, 1, tomorrow())), key(n, 1));
    let create = |n| crate::storage::NewCustomCsr { idempotency_key: Some(key(n, 2)), ..new_custom_csr(&zone, KeyType::P256v1) };

    assert_eq!(store.accept_certificate(&upload(1), &actor(), now()).await.unwrap(), None);
    assert_eq!(store.accept_custom_csr(&create(1), &actor(), now()).await.unwrap(), Acceptance::KeyReused);
    accept_new(&*store, &create(2)).await;
    assert_eq!(store.accept_certificate(&upload(2), &actor(), now()).await.unwrap(), Some(CertificateRefusal::KeyTaken));
    assert_eq!(store.find_upload(&zone, &key(2, 1), now()).await.unwrap(), Some(Repeat::KeyReused));

    // Whoever takes over a record that is too old leaves nothing of it.
    let later = now().plus(IDEMPOTENCY_KEY_LIFE + Duration::from_micros(1));
    let taken_over = create(1);
    assert!(matches!(store.accept_custom_csr(&taken_over, &actor(), later).await.unwrap(), Acceptance::Accepted(_)));
    assert_eq!(store.find_upload(&zone, &key(1, 2), later).await.unwrap(), Some(Repeat::KeyReused));
    assert_eq!(test.number("SELECT COUNT(*) FROM idempotency_keys WHERE custom_certificate_id IS NOT NULL").await, 0);
    assert_eq!(store.accept_custom_csr(&create(1), &actor(), later).await.unwrap(), Acceptance::Replayed(vec![taken_over.id]));
}
