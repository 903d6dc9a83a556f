//! Custom CSRs that are deleted and can be restored for a while.

use std::{sync::Arc, time::Duration};

use super::{
    MASTER_KEY, accept, accept_new,
    certificates::{active, certificate, chain, tomorrow},
    database, generated, granted, query, start,
};
use crate::{
    audit::Via,
    bodies::edit::Edit,
    clock::Timestamp,
    custom_csr::{CustomCsr, KeyType, Status},
    ids::{CustomCsrId, Scope},
    storage::{
        AuditQuery, CertificateRefusal, CompletionOutcome, Deletion, Hidden, NewPoolKey, PoolAddition, Resealed, Restoration, Retirement,
        ScopeGrant, Store,
    },
    testing::{TestDatabase, actor, new_custom_csr, now, zone},
};

const GRACE: Duration = Duration::from_hours(24);
const MOST: u32 = 100;

/// The moment until which what is hidden here can be restored.
fn end() -> Timestamp {
    Timestamp::from_micros(4_000_000_000_000_000)
}

fn before(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.micros() - 1)
}

async fn hide(store: &dyn Store, scope: &Scope, id: CustomCsrId) -> Deletion {
    store.hide_custom_csr(scope, id, end(), &actor(), now()).await.unwrap()
}

async fn restore(store: &dyn Store, scope: &Scope, id: CustomCsrId) -> Restoration {
    store.restore_custom_csr(scope, id, MOST, &actor(), now()).await.unwrap()
}

async fn restored(store: &dyn Store, scope: &Scope, id: CustomCsrId) -> CustomCsr {
    match restore(store, scope, id).await {
        Restoration::Restored(csr) => *csr,
        other => panic!("not restored: {other:?}"),
    }
}

async fn destroy(store: &dyn Store, scope: &Scope, id: CustomCsrId) -> Deletion {
    store.destroy_custom_csr(scope, id, &actor(), now()).await.unwrap()
}

async fn used(store: &dyn Store, scope: &Scope) -> u32 {
    store.find_scope(scope).await.unwrap().unwrap().used
}

async fn total(store: &dyn Store, scope: &Scope) -> u64 {
    let page = store.list_custom_csrs(scope, &query()).await.unwrap();
    assert_eq!(page.rows.len() as u64, page.total);
    page.total
}

/// What was done, and how, oldest first.
async fn audited(store: &dyn Store) -> Vec<(String, Via)> {
    let entries = store.read_audit(AuditQuery::default()).await.unwrap().next().await.unwrap();
    let all = entries.into_iter().map(|entry| (entry.action, entry.actor.via));
    all.filter(|(action, _)| matches!(action.as_str(), "delete" | "restore" | "purge")).collect()
}

/// The rows of both tables, and what the scope counts of them.
pub(super) async fn check_counts(test: &TestDatabase) {
    for (counted, rows) in [("hidden", "FROM hidden_custom_csrs"), ("used + beside_quota - hidden", "FROM custom_csrs")] {
        let counted = test.number(&format!("SELECT CAST(SUM({counted}) AS BIGINT) FROM scopes")).await;
        assert_eq!(counted, test.number(&format!("SELECT COUNT(*) {rows}")).await, "{rows}");
    }
}

#[tokio::test]
async fn a_hidden_custom_csr_is_found_nowhere_counts_against_the_quota_and_comes_back_as_it_was() {
    let (test, store) = database().await;
    let scope = granted(&*store, 2).await;
    let (id, other) = (active(&*store, &scope, 1).await, accept(&*store, &scope).await);
    let there = store.find_custom_csr(&scope, id).await.unwrap().unwrap();
    let sealed = store.list_sealed(None, 10).await.unwrap();

    assert_eq!(hide(&*store, &zone("z2"), id).await, Deletion::NotFound, "it is not another zone's");
    assert_eq!(hide(&*store, &scope, id).await, Deletion::Deleted);
    assert_eq!(store.find_custom_csr(&scope, id).await.unwrap(), None);
    assert_eq!(total(&*store, &scope).await, 1);
    assert_eq!(store.find_usable_csr(&scope, id, None).await.unwrap(), None);
    assert_eq!(store.find_usable_csr_by_key(&scope, &[1; 32]).await.unwrap(), None);
    let upload = certificate(&scope, chain(id, 1, tomorrow()));
    assert_eq!(store.accept_certificate(&upload, &actor(), now()).await.unwrap(), Some(CertificateRefusal::CsrGone));
    let edit = Edit { name: Some(Some("new".into())), description: None };
    assert_eq!(store.edit_custom_csr(&scope, id, &edit, &actor(), now()).await.unwrap(), None);
    assert_eq!(hide(&*store, &scope, id).await, Deletion::NotFound);
    assert_eq!(store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap(), Deletion::NotFound);
    assert_eq!(used(&*store, &scope).await, 2);
    let refused = store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await.unwrap();
    assert_eq!(refused, crate::storage::Acceptance::QuotaUsedUp(2));
    assert_eq!(store.list_hidden(&scope, 10).await.unwrap(), Hidden { ids: vec![id], total: 1 });
    assert_eq!(store.list_hidden(&zone("z2"), 10).await.unwrap(), Hidden { ids: Vec::new(), total: 0 });
    check_counts(&test).await;

    assert_eq!(restore(&*store, &zone("z2"), id).await, Restoration::NotFound, "it is not another zone's");
    assert_eq!(restored(&*store, &scope, id).await, there);
    assert_eq!(store.find_custom_csr(&scope, id).await.unwrap().unwrap(), there);
    assert_eq!(format!("{:?}", store.list_sealed(None, 10).await.unwrap()), format!("{sealed:?}"));
    assert_eq!((total(&*store, &scope).await, used(&*store, &scope).await), (2, 2));
    assert_eq!(store.accept_certificate(&upload, &actor(), now()).await.unwrap(), None);
    let there = store.find_custom_csr(&scope, id).await.unwrap().unwrap();
    assert_eq!(restored(&*store, &scope, id).await, there, "one that is there stays as it is");
    let there = store.find_custom_csr(&scope, other).await.unwrap().unwrap();
    assert_eq!(restored(&*store, &scope, other).await, there, "one that was never deleted too");
    assert_eq!(audited(&*store).await, [("delete".to_owned(), Via::Api), ("restore".to_owned(), Via::Api)]);
    check_counts(&test).await;
}

#[tokio::test]
async fn what_is_hidden_is_destroyed_when_its_time_is_over_and_not_a_moment_earlier() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    store.grant_scope(&zone("z2"), None, Some(10), &actor(), now()).await.unwrap();
    let ids = [active(&*store, &scope, 1).await, accept(&*store, &scope).await, accept(&*store, &zone("z2")).await];
    let (late, kept) = (accept(&*store, &scope).await, accept(&*store, &scope).await);
    for (scope, id) in [(&scope, ids[0]), (&scope, ids[1]), (&zone("z2"), ids[2])] {
        assert_eq!(hide(&*store, scope, id).await, Deletion::Deleted);
    }
    assert_eq!(store.hide_custom_csr(&scope, late, end().plus(GRACE), &actor(), now()).await.unwrap(), Deletion::Deleted);

    assert_eq!(store.destroy_due(before(end())).await.unwrap(), 0);
    let who = actor();
    let at = |time| store.restore_custom_csr(&scope, ids[0], MOST, &who, time);
    assert_eq!(at(end()).await.unwrap(), Restoration::NotFound, "its time is over, though nobody swept yet");
    assert!(matches!(at(before(end())).await.unwrap(), Restoration::Restored(_)));
    assert_eq!(hide(&*store, &scope, ids[0]).await, Deletion::Deleted);
    assert_eq!(store.destroy_due(end()).await.unwrap(), 3);
    assert_eq!(store.destroy_due(end()).await.unwrap(), 0);

    assert_eq!(restore(&*store, &scope, ids[0]).await, Restoration::NotFound);
    assert_eq!((used(&*store, &scope).await, used(&*store, &zone("z2")).await), (2, 0));
    assert_eq!(total(&*store, &scope).await, 1);
    assert!(store.find_custom_csr(&scope, kept).await.unwrap().is_some());
    assert_eq!(test.number("SELECT COUNT(*) FROM hidden_custom_csrs").await, 1);
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs}").await, 1, "that of the one that is there");
    let swept: Vec<_> = audited(&*store).await.into_iter().filter(|(action, _)| action == "purge").collect();
    assert_eq!(swept, vec![("purge".to_owned(), Via::Worker); 3]);
    check_counts(&test).await;
}

#[tokio::test]
async fn one_can_be_destroyed_at_once_whether_it_is_hidden_or_not() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let (hidden, there) = (active(&*store, &scope, 1).await, active(&*store, &scope, 2).await);
    assert_eq!(hide(&*store, &scope, hidden).await, Deletion::Deleted);
    for id in [hidden, there] {
        assert_eq!(destroy(&*store, &zone("z2"), id).await, Deletion::NotFound);
        assert_eq!(destroy(&*store, &scope, id).await, Deletion::Deleted);
        assert_eq!(destroy(&*store, &scope, id).await, Deletion::NotFound);
        assert_eq!(restore(&*store, &scope, id).await, Restoration::NotFound);
    }
    assert_eq!(used(&*store, &scope).await, 0);
    assert_eq!(audited(&*store).await.into_iter().map(|(action, _)| action).collect::<Vec<_>>(), ["delete", "purge", "delete"]);
    check_counts(&test).await;
}

#[tokio::test]
async fn one_that_a_certificate_uses_is_not_hidden_and_expired_ones_go_with_it() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let id = active(&*store, &scope, 1).await;
    let over = certificate(&scope, chain(id, 1, now().minus(GRACE)));
    let valid = certificate(&scope, chain(id, 1, tomorrow()));
    for new in [&over, &valid] {
        assert_eq!(store.accept_certificate(new, &actor(), now()).await.unwrap(), None);
    }
    let there = store.find_custom_csr(&scope, id).await.unwrap();
    assert_eq!(hide(&*store, &scope, id).await, Deletion::InUse);
    assert_eq!(destroy(&*store, &scope, id).await, Deletion::InUse);
    assert_eq!(store.find_custom_csr(&scope, id).await.unwrap(), there, "a refused deletion changes nothing");
    assert_eq!(test.number("SELECT COUNT(*) FROM custom_csrs WHERE destroy_after IS NOT NULL").await, 0);
    assert!(store.delete_certificate(&scope, valid.id, &actor(), now()).await.unwrap());
    assert_eq!(hide(&*store, &scope, id).await, Deletion::Deleted);
    assert_eq!(store.find_certificate(&scope, over.id).await.unwrap(), None);
    assert!(restored(&*store, &scope, id).await.certificate_ids.is_empty());
}

#[tokio::test]
async fn nothing_is_made_for_a_pending_one_while_it_is_hidden_and_a_worker_makes_it_once_it_is_back() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let id = accept(&*store, &scope).await;
    start(&*store, id).await.unwrap();
    assert_eq!(hide(&*store, &scope, id).await, Deletion::Deleted);
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs}").await, 0);
    assert!(start(&*store, id).await.is_none());
    assert_eq!(store.complete_generation(id, &generated(1), now()).await.unwrap(), CompletionOutcome::NotPending);
    assert!(!store.fail_generation(id, "too late", now()).await.unwrap());
    assert_eq!((store.sweep().await.unwrap().requeued, store.figures().await.unwrap().pending), (0, 0));

    let mut jobs = store.signals().enqueued();
    assert_eq!(restored(&*store, &scope, id).await.status, Status::Pending);
    tokio::time::timeout(Duration::from_secs(30), jobs.changed()).await.expect("workers are woken").unwrap();
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs}").await, 1);
    assert_eq!(store.sweep().await.unwrap().requeued, 0, "it has its job");
    assert_eq!(start(&*store, id).await.unwrap().starts, 1);
    assert!(store.complete_generation(id, &generated(2), now()).await.unwrap().is_completed());
    assert_eq!(store.find_custom_csr(&scope, id).await.unwrap().unwrap().status, Status::Active);
}

#[tokio::test]
async fn a_pending_one_comes_back_only_where_another_pending_one_may_be() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let (pending, active) = (accept(&*store, &scope).await, active(&*store, &scope, 1).await);
    for id in [pending, active] {
        assert_eq!(hide(&*store, &scope, id).await, Deletion::Deleted);
    }
    accept(&*store, &scope).await;
    let who = actor();
    let restore = |id, most| store.restore_custom_csr(&scope, id, most, &who, now());
    assert_eq!(restore(pending, 1).await.unwrap(), Restoration::TooManyPending);
    check_counts(&test).await;
    assert!(matches!(restore(active, 1).await.unwrap(), Restoration::Restored(_)), "it is not pending");
    assert!(matches!(restore(pending, 2).await.unwrap(), Restoration::Restored(_)));
    check_counts(&test).await;
}

#[tokio::test]
async fn nothing_comes_back_where_the_grant_was_revoked_and_it_is_destroyed_all_the_same() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let id = active(&*store, &scope, 1).await;
    assert_eq!(hide(&*store, &scope, id).await, Deletion::Deleted);
    assert!(store.revoke_scope(&scope, &actor(), now()).await.unwrap());
    assert_eq!(restore(&*store, &scope, id).await, Restoration::NotGranted);
    check_counts(&test).await;
    granted(&*store, 0).await;
    restored(&*store, &scope, id).await;
    assert_eq!(hide(&*store, &scope, id).await, Deletion::Deleted);
    assert!(store.revoke_scope(&scope, &actor(), now()).await.unwrap());
    assert_eq!(store.destroy_due(end()).await.unwrap(), 1);
    let ScopeGrant { granted, used, .. } = store.find_scope(&scope).await.unwrap().unwrap();
    assert!(!granted && used == 0);
}

#[tokio::test]
async fn those_that_share_the_job_of_a_hidden_one_get_others() {
    let (test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let (first, second) = (accept(&*store, &scope).await, accept(&*store, &scope).await);
    test.execute(&format!("UPDATE custom_csrs SET job_id = (SELECT job_id FROM custom_csrs WHERE id = '{first}') WHERE id = '{second}'"))
        .await;
    assert_eq!(hide(&*store, &scope, first).await, Deletion::Deleted);
    assert_eq!(store.sweep().await.unwrap().requeued, 0, "the other one has a job that lives");
    let lives = "SELECT COUNT(*) FROM custom_csrs WHERE job_id IN (SELECT id FROM {jobs})";
    assert_eq!(test.number(lives).await, 1);
}

#[tokio::test]
async fn those_that_share_a_job_are_all_deleted_at_the_same_time() {
    let (test, store) = database().await;
    let scope = granted(&*store, 100).await;
    for _ in 0..5 {
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.push(accept(&*store, &scope).await);
        }
        test.execute("UPDATE custom_csrs SET job_id = (SELECT MIN(job_id) FROM custom_csrs)").await;
        let mut tasks = tokio::task::JoinSet::new();
        for (place, id) in ids.into_iter().enumerate() {
            let (store, scope) = (Arc::clone(&store), scope.clone());
            tasks.spawn(async move {
                match place % 2 {
                    0 => store.delete_custom_csr(&scope, id, &actor(), now()).await,
                    _ => store.hide_custom_csr(&scope, id, end(), &actor(), now()).await,
                }
            });
        }
        let deletions = tasks.join_all().await;
        assert!(deletions.iter().all(|deletion| matches!(deletion, Ok(Deletion::Deleted))), "{deletions:?}");
    }
}

#[tokio::test]
async fn hidden_records_are_sealed_anew_and_keep_their_master_key_from_being_forgotten() {
    const NEW: &str = "fedcba9876543210";
    let (_test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let id = active(&*store, &scope, 1).await;
    assert_eq!(hide(&*store, &scope, id).await, Deletion::Deleted);
    let records = store.list_sealed(None, 10).await.unwrap();
    assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), [id], "it is checked like all others");
    store.use_master_key(NEW, &actor(), now()).await.unwrap();
    assert_eq!(store.retire_master_key(MASTER_KEY, &actor(), now()).await.unwrap(), Retirement::Needed);
    assert_eq!(store.count_sealed().await.unwrap()[0].sealed, 1);
    let records = store.list_sealed_by(MASTER_KEY, None, 10).await.unwrap();
    let [record] = &records[..] else { panic!("{records:?}") };
    let binding = record.binding();
    assert_eq!((binding.table, binding.row_id, binding.scope), ("custom_csrs", &*id.to_string(), &*scope.to_string()));
    assert!(store.list_sealed_by(MASTER_KEY, Some(record), 10).await.unwrap().is_empty());
    let resealed = Resealed { record: record.clone(), master_key_id: NEW.to_owned(), resealed: vec![99; 100] };
    assert_eq!(store.reseal(&[resealed]).await.unwrap(), 1);
    assert_eq!(store.retire_master_key(MASTER_KEY, &actor(), now()).await.unwrap(), Retirement::Retired);
    restored(&*store, &scope, id).await;
    let records = store.list_sealed(None, 10).await.unwrap();
    assert_eq!((records[0].master_key_id.as_str(), &records[0].sealed_private_key), (NEW, &vec![99; 100]));
}

#[tokio::test]
async fn the_key_of_a_hidden_one_is_in_use() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 10).await;
    let id = active(&*store, &scope, 1).await;
    assert_eq!(hide(&*store, &scope, id).await, Deletion::Deleted);
    let next = accept_new(&*store, &new_custom_csr(&scope, KeyType::Rsa2048)).await;
    assert_eq!(store.complete_generation(next, &generated(1), now()).await.unwrap(), CompletionOutcome::KeyInUse);
    let key = |spki| NewPoolKey { id: "k".into(), spki_sha256: [spki; 32], master_key_id: MASTER_KEY.into(), sealed_private_key: vec![1] };
    assert_eq!(store.add_pool_key(&key(1), 10, now()).await.unwrap(), PoolAddition::KeyInUse);
    assert_eq!(destroy(&*store, &scope, id).await, Deletion::Deleted);
    assert!(store.complete_generation(next, &generated(1), now()).await.unwrap().is_completed());
}

#[tokio::test]
async fn deletions_restorations_and_sweeps_at_the_same_time_lose_no_count_and_no_row() {
    let (test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let mut ids = Vec::new();
    for spki in 1..=6 {
        ids.push(active(&*store, &scope, spki).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, id) in ids.iter().cycle().take(72).copied().enumerate() {
        let (store, scope) = (Arc::clone(&store), scope.clone());
        tasks.spawn(async move {
            // A lock that does not come in time is no fault here.
            match number % 4 {
                0 | 1 => drop(store.hide_custom_csr(&scope, id, end(), &actor(), now()).await),
                2 => drop(store.restore_custom_csr(&scope, id, MOST, &actor(), now()).await),
                _ if number > 60 => drop(store.destroy_custom_csr(&scope, id, &actor(), now()).await),
                _ => drop(store.destroy_due(before(end())).await),
            }
        });
    }
    tasks.join_all().await;
    check_counts(&test).await;
    let both = "SELECT COUNT(*) FROM custom_csrs WHERE id IN (SELECT id FROM hidden_custom_csrs)";
    assert_eq!(test.number(both).await, 0);
}

#[tokio::test]
async fn both_tables_have_the_same_columns_in_the_same_order() {
    let (test, _store) = database().await;
    let differing = if test.is_postgres() {
        "SELECT COUNT(*) FROM (SELECT attnum, attname, atttypid FROM pg_attribute WHERE attrelid = 'custom_csrs'::regclass AND attnum > 0) AS one \
         FULL JOIN (SELECT attnum, attname, atttypid FROM pg_attribute WHERE attrelid = 'hidden_custom_csrs'::regclass AND attnum > 0) AS other \
         USING (attnum, attname, atttypid) WHERE one IS NULL OR other IS NULL"
    } else {
        "SELECT COUNT(*) FROM (SELECT cid, name, type FROM pragma_table_info('custom_csrs')) AS one \
         FULL JOIN (SELECT cid, name, type FROM pragma_table_info('hidden_custom_csrs')) AS other USING (cid, name, type) \
         WHERE one.type IS NULL OR other.type IS NULL"
    };
    assert_eq!(test.number(differing).await, 0, "rows move from one to the other as they are: a new column is added to both");
}
