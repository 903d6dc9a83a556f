//! Plans of rekeys, run by real workers on a database that errs.

use std::{sync::Arc, time::Duration};

use shared::{
    audit::{Actor, Via},
    custom_certificate::{BundleMethod, CertificateChain, CertificateType, LeafDetails},
    custom_csr::{KeyType, Status},
    ids::{CustomCertificateId, IncidentId},
    incident::IncidentStatus,
    storage::{NewCertificate, NewChain, NewIncident, PlannedCertificate, StoreError},
    testing::{
        actor,
        faulty::{Fault, FaultyStore, When},
        now,
    },
};
use tokio::time::Instant;
use worker::{Limits, keys::aws_lc::AwsLc};

use crate::support::World;

/// A certificate for an active custom CSR; nobody reads its PEM.
async fn certify(world: &World, number: u8) -> PlannedCertificate {
    let id = world.accept(KeyType::P256v1).await;
    assert_eq!(world.ended(id).await.status, Status::Active);
    let sealed = world.store().list_sealed(None, 1_000).await.unwrap().into_iter().find(|row| row.id == id).unwrap();
    let chain = CertificateChain {
        pem: format!("-----BEGIN CERTIFICATE-----\n{number}\n-----END CERTIFICATE-----\n"),
        hosts: vec!["www.foo.com".into()],
        issuer: "CA".into(),
        signature: "SHA256WithRSA".into(),
        not_after: now().plus(Duration::from_hours(24)),
        leaf: LeafDetails { not_before: now(), serial_number: "0a".into(), fingerprint_sha256: "ff".into() },
    };
    let new = NewCertificate {
        id: CustomCertificateId::new(now()),
        zone: world.scope.clone(),
        chain: NewChain { custom_csr_id: id, spki_sha256: sealed.spki_sha256, chain },
        bundle_method: BundleMethod::Ubiquitous,
        certificate_type: CertificateType::SniCustom,
        priority: 0,
        idempotency_key: None,
        handover: None,
    };
    assert_eq!(world.store().accept_certificate(&new, &actor(), now()).await.unwrap(), None);
    PlannedCertificate { id: new.id, zone: world.scope.clone(), custom_csr_id: id, scope: world.scope.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_done_once_whatever_the_database_answers_and_whether_it_did_what_it_was_asked_for() {
    let fault = |method, from, when, error| Fault { method, from, calls: 1, when, error };
    let text = || "on purpose".to_owned();
    let faults = vec![
        fault("take_turn", 0, When::Before, StoreError::Unavailable(text())),
        fault("take_turn", 1, When::After, StoreError::Ambiguous(text())),
        fault("take_turn", 2, When::After, StoreError::Internal(text())),
        fault("take_turn", 3, When::Before, StoreError::Corrupt(text())),
        fault("wake_incidents", 0, When::After, StoreError::Ambiguous(text())),
    ];
    let mut world = World::new().await;
    let store = Arc::new(FaultyStore::new(Arc::clone(&world.test.database.store), faults));
    world.test.database.store = Arc::<FaultyStore>::clone(&store);
    let workers = world.workers(AwsLc, Limits::default());
    let mut certificates = Vec::new();
    for number in 0..40 {
        certificates.push(certify(&world, number).await);
    }
    let new = NewIncident { id: IncidentId::new(now()), filters: serde_json::json!({}), certificates };
    let operator = Actor { who: "os:root".into(), via: Via::Cli, from: "local".into(), request_id: None };
    world.store().create_incident(&new, &operator, now()).await.unwrap();
    world.store().start_incident(new.id, None, &operator, now()).await.unwrap();
    let end = Instant::now() + Duration::from_mins(1);
    let done = loop {
        if let Ok(Some(incident)) = world.store().find_incident(new.id).await
            && incident.status == IncidentStatus::Done
            && incident.progress.pending == 0
        {
            break incident.progress;
        }
        assert!(Instant::now() < end, "not done after a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((done.rekeyed, done.active, done.skipped, done.failed), (40, 40, 0, 0));
    assert_eq!(world.test.number("SELECT COUNT(*) FROM custom_csrs WHERE replaces IS NOT NULL").await, 40);
    assert!(store.calls_of("take_turn") > 4 && store.calls_of("wake_incidents") > 1);
    assert!(workers.drain(Duration::from_secs(10)).await);
}
