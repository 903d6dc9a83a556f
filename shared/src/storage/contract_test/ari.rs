//! ARI: whom to ask about, what they said, and that their windows have begun, once.

use std::time::Duration;

use super::{
    certificates::{active, certificate, chain},
    database, granted,
    webhooks::{due, webhook},
};
use crate::{
    ari::{IssuedBy, RenewalInfo},
    clock::Timestamp,
    custom_certificate::CustomCertificate,
    ids::{CustomCertificateId, CustomCsrId, Scope},
    storage::{Asked, CertificateChange, NewChain, Store, Unasked},
    testing::{actor, now},
    x509::certificate::leaf_details,
};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

/// A chain with a leaf that can be parsed: the issuer's key identifier is that of the key of a fresh authority.
fn real(csr: CustomCsrId, spki: u8) -> NewChain {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::OrganizationName, "Acme Trust");
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let mut leaf = rcgen::CertificateParams::new(vec!["www.foo.com".to_owned()]).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
    let mut new = chain(csr, spki, now().plus(DAY * 90));
    new.chain.pem = leaf.pem();
    new.chain.leaf = leaf_details(&new.chain.pem).unwrap();
    new
}

async fn uploaded(store: &dyn Store, zone: &Scope, csr: CustomCsrId) -> CustomCertificateId {
    let new = certificate(zone, real(csr, 1));
    assert_eq!(store.accept_certificate(&new, &actor(), now()).await.unwrap(), None);
    new.id
}

async fn taken(store: &dyn Store, at: Timestamp) -> Vec<Unasked> {
    store.take_unasked(10, at.plus(Duration::from_mins(5)), at).await.unwrap()
}

async fn found(store: &dyn Store, zone: &Scope, id: CustomCertificateId) -> CustomCertificate {
    store.find_certificate(zone, id).await.unwrap().unwrap()
}

fn answer(from: Timestamp) -> Asked {
    let info = RenewalInfo { window: (from, from.plus(DAY)), explanation_url: Some("https://acme.example/".into()) };
    Asked::Answered(info, from.plus(HOUR))
}

#[tokio::test]
async fn a_certificate_is_taken_by_one_until_it_is_asked_about_or_the_lease_ends() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr).await;
    let at = now();
    let first = taken(&*store, at).await;
    let [unasked] = &first[..] else { panic!("{first:?}") };
    let Some(IssuedBy { names, key_identifier, serial_number }) = &unasked.issued_by else { panic!() };
    assert_eq!((unasked.id, unasked.errors, names[0].as_str()), (id, 0, "Acme Trust"));
    assert!(!key_identifier.is_empty() && !serial_number.is_empty());
    assert!(taken(&*store, at.plus(Duration::from_mins(4))).await.is_empty());
    assert_eq!(taken(&*store, at.plus(Duration::from_mins(5))).await.len(), 1, "whoever took it was killed");
    store.end_asking(unasked, &Asked::Failed, at.plus(HOUR)).await.unwrap();
    assert!(taken(&*store, at.plus(HOUR).minus(DAY)).await.is_empty());
    let again = taken(&*store, at.plus(HOUR)).await;
    assert_eq!(again[0].errors, 1);
    store.end_asking(&again[0], &Asked::NotAsked, at.plus(DAY)).await.unwrap();
    assert!(taken(&*store, at.plus(HOUR * 2)).await.is_empty());
    // There may be other settings.
    assert_eq!(store.look_again(at.plus(HOUR)).await.unwrap(), 0);
    assert_eq!(store.look_again(at.plus(DAY * 2)).await.unwrap(), 1);
    assert_eq!(taken(&*store, at.plus(HOUR * 2)).await.len(), 1);
    assert!(taken(&*store, at.plus(DAY * 91)).await.is_empty(), "one that has expired is no longer asked about");
}

#[tokio::test]
async fn a_moment_is_chosen_once_for_each_window_and_its_begin_is_told_once() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr).await;
    let hook = webhook(&*store, &zone, &["custom_certificate.renew_now"]).await;
    let at = now();
    let unasked = taken(&*store, at).await.remove(0);
    let window = at.plus(DAY * 10);
    store.end_asking(&unasked, &answer(window), at.plus(HOUR)).await.unwrap();
    let renewal = found(&*store, &zone, id).await.renewal;
    assert_eq!((renewal.after, renewal.explanation_url.as_deref()), (Some(window.plus(HOUR)), Some("https://acme.example/")));
    let other = RenewalInfo { window: (window, window.plus(DAY)), explanation_url: None };
    store.end_asking(&unasked, &Asked::Answered(other, window.plus(HOUR * 5)), at.plus(HOUR)).await.unwrap();
    let renewal = found(&*store, &zone, id).await.renewal;
    assert_eq!((renewal.after, renewal.explanation_url), (Some(window.plus(HOUR)), None), "the window is the same");
    assert_eq!(store.tell_renew_now(window.minus(HOUR)).await.unwrap(), 0);
    assert_eq!(store.tell_renew_now(window).await.unwrap(), 1);
    assert_eq!(store.tell_renew_now(window.plus(HOUR)).await.unwrap(), 0, "once");
    store.end_asking(&unasked, &answer(window), at.plus(HOUR)).await.unwrap();
    assert_eq!(store.tell_renew_now(window.plus(HOUR)).await.unwrap(), 0, "the same window has begun already");
    store.end_asking(&unasked, &Asked::Failed, at.plus(HOUR)).await.unwrap();
    assert!(found(&*store, &zone, id).await.renewal.after.is_some(), "an error changes nothing");
    store.end_asking(&unasked, &answer(window.minus(DAY)), at.plus(HOUR)).await.unwrap();
    assert_eq!(found(&*store, &zone, id).await.renewal.after, Some(window.minus(DAY).plus(HOUR)));
    assert_eq!(store.tell_renew_now(window).await.unwrap(), 1, "another window is told of anew");
    let told = due(&*store, hook).await;
    assert_eq!(told.iter().map(|due| due.event.as_str()).collect::<Vec<_>>(), ["custom_certificate.renew_now"; 2]);
}

#[tokio::test]
async fn of_another_leaf_nothing_is_known_and_it_is_asked_about_at_once() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr).await;
    let at = now();
    let unasked = taken(&*store, at).await.remove(0);
    store.end_asking(&unasked, &answer(at.minus(HOUR)), at.plus(DAY)).await.unwrap();
    let change = CertificateChange { chain: Some(real(csr, 1)), ..CertificateChange::default() };
    store.replace_certificate(&zone, id, &change, &actor(), at).await.unwrap();
    assert_eq!(found(&*store, &zone, id).await.renewal.after, None);
    assert_eq!(store.tell_renew_now(at).await.unwrap(), 0, "its leaf is not the one that is to be renewed");
    let next = taken(&*store, at).await;
    assert_eq!((next.len(), next[0].id), (1, id));
    // What was said of the former leaf comes too late.
    store.end_asking(&unasked, &answer(at.minus(HOUR)), at.plus(DAY)).await.unwrap();
    assert_eq!(found(&*store, &zone, id).await.renewal.after, None);
    assert_eq!(store.tell_renew_now(at).await.unwrap(), 0);
}

#[tokio::test]
async fn a_time_that_a_wrong_clock_wrote_keeps_no_certificate_from_being_asked_about() {
    let (_test, store) = database().await;
    let zone = granted(&*store, 10).await;
    let csr = active(&*store, &zone, 1).await;
    let id = uploaded(&*store, &zone, csr).await;
    let at = now();
    let unasked = taken(&*store, at).await.remove(0);
    store.end_asking(&unasked, &answer(at.plus(DAY * 60)), at.plus(DAY * 3)).await.unwrap();
    assert!(taken(&*store, at).await.is_empty(), "it was asked about for the longest time that there is");
    store.end_asking(&unasked, &Asked::Failed, at.plus(DAY * 3_650)).await.unwrap();
    assert_eq!(taken(&*store, at).await.iter().map(|unasked| unasked.id).collect::<Vec<_>>(), [id]);
}
