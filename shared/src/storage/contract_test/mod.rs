//! The contract of [`Store`], one suite for every database.

mod accepting;
mod ari;
mod auditing;
mod batches;
mod certificates;
mod figures;
mod generating;
mod handovers;
mod hidden;
mod incidents;
mod key_pool;
mod listing;
mod master_keys;
mod opening;
mod processes;
mod renewals;
mod sets;
mod uploads;
mod webhooks;

use std::sync::Arc;

use crate::{
    custom_csr::KeyType,
    ids::{CustomCsrId, Scope},
    storage::{Acceptance, Direction, GeneratedCsr, Generation, ListQuery, NewCustomCsr, Order, Store},
    testing::{TestDatabase, account, actor, new_custom_csr, now, zone},
};

const MASTER_KEY: &str = "0123456789abcdef";

async fn database() -> (TestDatabase, Arc<dyn Store>) {
    let test = TestDatabase::new().await;
    let store = Arc::clone(&test.database.store);
    store.register_master_key(MASTER_KEY, now()).await.unwrap();
    (test, store)
}

async fn granted(store: &dyn Store, quota: u32) -> Scope {
    let scope = zone("z1");
    store.grant_scope(&scope, account("a1").id().into(), Some(quota), &actor(), now()).await.unwrap();
    scope
}

async fn accept(store: &dyn Store, scope: &Scope) -> CustomCsrId {
    accept_new(store, &new_custom_csr(scope, KeyType::P256v1)).await
}

async fn accept_new(store: &dyn Store, new: &NewCustomCsr) -> CustomCsrId {
    match store.accept_custom_csr(new, &actor(), now()).await.unwrap() {
        Acceptance::Accepted(csrs) => csrs[0].id,
        other => panic!("not accepted: {other:?}"),
    }
}

async fn start(store: &dyn Store, id: CustomCsrId) -> Option<Generation> {
    store.start_generations(id, |_| 1).await.unwrap().pop()
}

fn generated(spki: u8) -> GeneratedCsr {
    GeneratedCsr {
        csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n".into(),
        spki_sha256: [spki; 32],
        master_key_id: MASTER_KEY.into(),
        sealed_private_key: vec![spki; 100],
    }
}

fn query() -> ListQuery {
    ListQuery {
        page: 1,
        per_page: 50,
        order: Order::CreatedAt,
        direction: Direction::Desc,
        status: None,
        key_type: None,
        search: None,
        set_id: None,
    }
}
