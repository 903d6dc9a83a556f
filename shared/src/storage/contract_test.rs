//! The contract of [`Store`], one suite for every database.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    Acceptance, Access, Database, Direction, GeneratedCsr, IDEMPOTENCY_KEY_LIFE, IdempotencyKey, ListQuery, Migrate, NewCustomCsr,
    OpenError, Order, Queue, Store,
};
use crate::{
    clock::Timestamp,
    error::StoreError,
    ids::{CustomCsrId, Scope},
    model::{KeyType, Status},
    testing::{TestDatabase, account, new_custom_csr, now, zone},
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
    store.grant_scope(&scope, account("a1").id().into(), Some(quota), now()).await.unwrap();
    scope
}

async fn accept(store: &dyn Store, scope: &Scope) -> CustomCsrId {
    accept_new(store, &new_custom_csr(scope, KeyType::P256v1)).await
}

async fn accept_new(store: &dyn Store, new: &NewCustomCsr) -> CustomCsrId {
    match store.accept_custom_csr(new, now()).await.unwrap() {
        Acceptance::Accepted(csr) => csr.id,
        other => panic!("not accepted: {other:?}"),
    }
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
    ListQuery { page: 1, per_page: 50, order: Order::CreatedAt, direction: Direction::Desc, status: None, key_type: None, search: None }
}

#[tokio::test]
async fn an_accepted_custom_csr_reads_back_as_it_was_given() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let new = new_custom_csr(&scope, KeyType::Rsa2048);
    let Acceptance::Accepted(accepted) = store.accept_custom_csr(&new, now()).await.unwrap() else { panic!("not accepted") };
    assert_eq!(accepted.request, new.request);
    assert_eq!((accepted.status, accepted.account.as_ref()), (Status::Pending, Some(account("a1").id())));
    assert_eq!(store.find_custom_csr(&scope, new.id).await.unwrap().as_ref(), Some(&*accepted));
}

#[tokio::test]
async fn a_custom_csr_of_another_scope_is_neither_found_nor_listed_nor_deleted() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    for other in [zone("z2"), account("z1"), account("a1")] {
        assert_eq!(store.find_custom_csr(&other, id).await.unwrap(), None);
        assert_eq!(store.list_custom_csrs(&other, &query()).await.unwrap().total, 0);
        assert!(!store.delete_custom_csr(&other, id).await.unwrap());
    }
    assert!(store.find_custom_csr(&scope, id).await.unwrap().is_some());
}

#[tokio::test]
async fn nothing_is_accepted_without_a_grant_or_without_a_quota_or_beyond_it() {
    let (_test, store) = database().await;
    let scope = zone("z1");
    let attempt = || async { store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), now()).await.unwrap() };
    assert_eq!(attempt().await, Acceptance::NotGranted);
    store.grant_scope(&scope, None, None, now()).await.unwrap();
    assert_eq!(attempt().await, Acceptance::NoQuota);
    store.grant_scope(&scope, None, Some(1), now()).await.unwrap();
    let id = accept(&*store, &scope).await;
    assert_eq!(attempt().await, Acceptance::QuotaUsedUp(1));
    assert!(store.delete_custom_csr(&scope, id).await.unwrap());
    let id = accept(&*store, &scope).await;
    assert!(store.revoke_scope(&scope, now()).await.unwrap());
    assert!(!store.revoke_scope(&scope, now()).await.unwrap());
    assert_eq!(attempt().await, Acceptance::NotGranted);
    assert!(store.find_custom_csr(&scope, id).await.unwrap().is_some(), "what exists stays readable");
    store.grant_scope(&scope, None, Some(0), now()).await.unwrap();
    assert_eq!(attempt().await, Acceptance::QuotaUsedUp(0));
    assert_eq!(store.find_scope(&scope).await.unwrap().unwrap().used, 1);
}

#[tokio::test]
async fn fifty_concurrent_requests_never_get_one_more_than_the_quota() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 20).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (store, new) = (Arc::clone(&store), new_custom_csr(&scope, KeyType::P256v1));
        tasks.spawn(async move { store.accept_custom_csr(&new, now()).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Acceptance::Accepted(_))).count(), 20);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Acceptance::QuotaUsedUp(20)).count(), 30);
    assert_eq!(store.list_custom_csrs(&scope, &query()).await.unwrap().total, 20);
}

#[tokio::test]
async fn a_key_that_came_before_is_replayed_with_the_same_body_and_refused_with_another_until_it_is_too_old() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 2).await;
    let with_key = |body: u8| NewCustomCsr {
        idempotency_key: Some(IdempotencyKey { key_sha256: vec![1; 32], body_sha256: vec![body; 32] }),
        ..new_custom_csr(&scope, KeyType::P256v1)
    };
    let id = accept_new(&*store, &with_key(1)).await;
    assert_eq!(store.accept_custom_csr(&with_key(1), now()).await.unwrap(), Acceptance::Replayed(id));
    assert_eq!(store.accept_custom_csr(&with_key(2), now()).await.unwrap(), Acceptance::KeyReused);
    assert!(store.delete_custom_csr(&scope, id).await.unwrap());
    assert_eq!(store.accept_custom_csr(&with_key(1), now()).await.unwrap(), Acceptance::Replayed(id), "deleted, but remembered");
    let tomorrow = now().plus(IDEMPOTENCY_KEY_LIFE).plus(Duration::from_secs(1));
    assert!(matches!(store.accept_custom_csr(&with_key(2), tomorrow).await.unwrap(), Acceptance::Accepted(_)));
    let purged = store.purge(now(), tomorrow.plus(IDEMPOTENCY_KEY_LIFE).plus(Duration::from_secs(1))).await.unwrap();
    assert_eq!(purged.idempotency_keys, 1);
}

#[tokio::test]
async fn a_key_of_a_refused_request_is_free_again() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 0).await;
    let key = IdempotencyKey { key_sha256: vec![1; 32], body_sha256: vec![1; 32] };
    let new = NewCustomCsr { idempotency_key: Some(key), ..new_custom_csr(&scope, KeyType::P256v1) };
    assert_eq!(store.accept_custom_csr(&new, now()).await.unwrap(), Acceptance::QuotaUsedUp(0));
    granted(&*store, 1).await;
    accept_new(&*store, &new).await;
}

#[tokio::test]
async fn fifty_equal_requests_at_once_make_one_custom_csr() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 50).await;
    let key = IdempotencyKey { key_sha256: vec![1; 32], body_sha256: vec![1; 32] };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let new = NewCustomCsr { idempotency_key: Some(key.clone()), ..new_custom_csr(&scope, KeyType::P256v1) };
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.accept_custom_csr(&new, now()).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    let accepted: Vec<_> = outcomes.iter().filter_map(|o| if let Acceptance::Accepted(csr) = o { Some(csr.id) } else { None }).collect();
    let [id] = accepted.as_slice() else { panic!("{accepted:?}") };
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Acceptance::Replayed(*id)).count(), 49);
    assert_eq!(store.find_scope(&scope).await.unwrap().unwrap().used, 1);
}

#[tokio::test]
async fn a_generation_completes_once_and_the_second_result_is_discarded() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap());
    assert!(!store.complete_generation(id, &generated(2), now()).await.unwrap());
    assert!(!store.fail_generation(id, "late", now()).await.unwrap());
    assert!(store.start_generation(id).await.unwrap().is_none());
    let csr = store.find_custom_csr(&scope, id).await.unwrap().unwrap();
    assert_eq!((csr.status, csr.error), (Status::Active, None));
    assert_eq!(store.sample_sealed(MASTER_KEY).await.unwrap().unwrap().spki_sha256, [1; 32]);
}

#[tokio::test]
async fn a_private_key_cannot_belong_to_two_custom_csrs() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 2).await;
    let (first, second) = (accept(&*store, &scope).await, accept(&*store, &scope).await);
    assert!(store.complete_generation(first, &generated(1), now()).await.unwrap());
    assert!(matches!(store.complete_generation(second, &generated(1), now()).await, Err(StoreError::Internal(_))));
    assert_eq!(store.find_custom_csr(&scope, second).await.unwrap().unwrap().status, Status::Pending);
}

#[tokio::test]
async fn a_deleted_custom_csr_is_never_brought_back_by_a_late_result() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.start_generation(id).await.unwrap().is_some());
    assert!(store.delete_custom_csr(&scope, id).await.unwrap());
    assert!(!store.complete_generation(id, &generated(1), now()).await.unwrap());
    assert!(!store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    assert_eq!(store.find_custom_csr(&scope, id).await.unwrap(), None);
    assert_eq!(store.sweep(now()).await.unwrap().requeued, 0);
}

#[tokio::test]
async fn only_one_of_two_workers_counts_the_attempt_that_both_saw() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    let started = store.start_generation(id).await.unwrap().unwrap();
    assert_eq!((started.attempts, started.starts), (0, 1));
    assert_eq!(store.start_generation(id).await.unwrap().unwrap().starts, 2);
    store.forget_start(id).await.unwrap();
    assert!(store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    assert!(!store.retry_generation(id, 0, Duration::ZERO, now()).await.unwrap());
    let again = store.start_generation(id).await.unwrap().unwrap();
    assert_eq!((again.attempts, again.starts), (1, 1), "a counted attempt is a result: starts count anew");
    assert!(store.fail_generation(id, "no luck", now()).await.unwrap());
    let csr = store.find_custom_csr(&scope, id).await.unwrap().unwrap();
    assert_eq!((csr.status, csr.error.as_deref()), (Status::Failed, Some("no luck")));
}

#[tokio::test]
async fn the_sweep_gives_a_new_job_to_rows_whose_job_is_gone_and_to_no_others() {
    let (test, store) = database().await;
    let scope = granted(&*store, 700).await;
    for _ in 0..600 {
        accept(&*store, &scope).await;
    }
    assert_eq!(store.sweep(now()).await.unwrap().requeued, 0);
    test.execute("DELETE FROM {jobs}").await;
    let done = accept(&*store, &scope).await;
    test.execute("UPDATE {jobs} SET status = 'Killed'").await;
    let mut wake = store.signals().enqueued();
    wake.mark_unchanged();
    assert_eq!(store.sweep(now()).await.unwrap().requeued, 601);
    assert!(wake.has_changed().unwrap(), "a sweep wakes the workers");
    assert_eq!(store.sweep(now()).await.unwrap().requeued, 0);
    assert!(store.find_custom_csr(&scope, done).await.unwrap().is_some());
}

#[tokio::test]
async fn the_purge_deletes_finished_jobs_and_leaves_live_ones() {
    let (test, store) = database().await;
    let scope = granted(&*store, 2).await;
    accept(&*store, &scope).await;
    let (long_ago, last_seen) = if test.is_postgres() { ("to_timestamp(1000)", "to_timestamp(1)") } else { ("1000", "1") };
    test.execute(&format!("UPDATE {{jobs}} SET status = 'Done', done_at = {long_ago}")).await;
    accept(&*store, &scope).await;
    test.execute(&format!("INSERT INTO {{workers}} (id, worker_type, storage_name, last_seen) VALUES ('gone', 'q', 's', {last_seen})"))
        .await;
    let purged = store.purge(Timestamp::from_micros(2_000_000_000), now()).await.unwrap();
    assert_eq!((purged.jobs, purged.workers), (1, 1));
    assert_eq!(test.number("SELECT COUNT(*) FROM {jobs}").await, 1);
}

#[tokio::test]
async fn a_list_is_sorted_by_code_point_with_null_last_and_cut_into_pages() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let names = [Some("b"), None, Some("B"), Some("ä"), Some("a"), None, Some("z")];
    for name in names {
        let mut new = new_custom_csr(&scope, KeyType::P256v1);
        new.request.name = name.map(str::to_owned);
        accept_new(&*store, &new).await;
    }
    let listed = |direction, page| {
        let store = Arc::clone(&store);
        let scope = scope.clone();
        async move {
            let query = ListQuery { order: Order::Name, direction, page, per_page: 5, ..query() };
            let page = store.list_custom_csrs(&scope, &query).await.unwrap();
            assert_eq!(page.total, 7);
            page.rows.into_iter().map(|csr| csr.request.name.unwrap_or("-".into())).collect::<String>()
        }
    };
    assert_eq!(listed(Direction::Asc, 1).await, "Babzä");
    assert_eq!(listed(Direction::Asc, 2).await, "--");
    assert_eq!(listed(Direction::Desc, 1).await, "äzbaB");
    assert_eq!(listed(Direction::Desc, 3).await, "");
    let newest = store.list_custom_csrs(&scope, &query()).await.unwrap().rows;
    assert!(newest.windows(2).all(|pair| (pair[0].created_at, pair[0].id) > (pair[1].created_at, pair[1].id)));
    assert_eq!(newest.iter().map(|csr| csr.id).collect::<HashSet<_>>().len(), 7);
}

#[tokio::test]
async fn a_search_takes_wildcards_literally_and_ignores_ascii_case_only() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let mut new = new_custom_csr(&scope, KeyType::P256v1);
    new.request.name = Some("50%_Ü\\x".into());
    accept_new(&*store, &new).await;
    accept(&*store, &scope).await;
    for (search, hits) in [
        ("50%_Ü\\X", 1),
        ("%", 1),
        ("_", 1),
        ("\\", 1),
        ("ü", 0),
        ("WWW.FOO", 2),
        ("foo.comwww", 0),
        ("\0", 0),
        ("\u{1}", 0),
        ("0__", 0),
        ("", 2),
    ] {
        let query = ListQuery { search: Some(search.into()), ..query() };
        assert_eq!(store.list_custom_csrs(&scope, &query).await.unwrap().total, hits, "{search:?}");
    }
}

#[tokio::test]
async fn filters_leave_only_what_they_name() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let rsa = accept_new(&*store, &new_custom_csr(&scope, KeyType::Rsa2048)).await;
    let p256 = accept(&*store, &scope).await;
    assert!(store.complete_generation(p256, &generated(1), now()).await.unwrap());
    let ids = |query: ListQuery| {
        let (store, scope) = (Arc::clone(&store), scope.clone());
        async move { store.list_custom_csrs(&scope, &query).await.unwrap().rows.iter().map(|csr| csr.id).collect::<Vec<_>>() }
    };
    assert_eq!(ids(ListQuery { status: Some(Status::Active), ..query() }).await, [p256]);
    assert_eq!(ids(ListQuery { key_type: Some(KeyType::Rsa2048), ..query() }).await, [rsa]);
    assert!(ids(ListQuery { status: Some(Status::Active), key_type: Some(KeyType::Rsa2048), ..query() }).await.is_empty());
}

#[tokio::test]
async fn an_unused_master_key_is_forgotten_and_a_used_one_is_kept() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap());
    store.register_master_key("unused", now()).await.unwrap();
    store.register_master_key("newest", now()).await.unwrap();
    let keys = store.list_master_keys().await.unwrap();
    let keys: Vec<_> = keys.iter().map(|key| (key.id.as_str(), key.current, key.in_use)).collect();
    assert_eq!(keys, [(MASTER_KEY, false, true), ("newest", true, false)]);
}

#[tokio::test]
async fn a_second_process_may_not_serve_the_same_file_but_any_number_the_same_server() {
    let (test, _store) = database().await;
    let open = |exclusive| Database::open(&test.location, Access { exclusive, ..Access::default() });
    assert_eq!(matches!(open(true).await, Err(OpenError::InUse(_))), !test.is_postgres());
    assert!(open(false).await.is_ok(), "a command beside it may work on it");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let (test, _store) = database().await;
    let (yes, checksum) = if test.is_postgres() { ("TRUE", "'\\x00'") } else { ("1", "x'00'") };
    test.execute(&format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', {yes}, {checksum}, 0)"
    ))
    .await;
    for migrate in [Migrate::Always, Migrate::FirstStart] {
        let access = Access { migrate, ..Access::default() };
        assert!(matches!(Database::open(&test.location, access).await, Err(OpenError::Newer(9999))));
    }
}

#[tokio::test]
async fn sqlite_keeps_every_commit_and_overwrites_what_is_deleted() {
    let (test, _store) = database().await;
    let Queue::Sqlite(pool) = &test.database.queue else { return };
    for (pragma, value) in [("PRAGMA synchronous", 2), ("PRAGMA secure_delete", 1), ("PRAGMA foreign_keys", 1)] {
        assert_eq!(test.number(pragma).await, value, "{pragma}");
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn enqueueing_notifies_nobody_within_the_transaction() {
    let (test, _store) = database().await;
    if test.is_postgres() {
        // apalis' trigger would make all commits wait for one lock: an upgrade that brings it back is to be noticed.
        let triggers = "SELECT COUNT(*) FROM pg_trigger WHERE tgrelid = 'apalis.jobs'::regclass AND NOT tgisinternal";
        assert_eq!(test.number(triggers).await, 0);
    }
}

#[tokio::test]
async fn other_processes_hear_of_new_jobs_and_of_changes() {
    let (test, store) = database().await;
    if !test.is_postgres() {
        return;
    }
    let other = Database::open(&test.location, Access::default()).await.unwrap();
    let (mut enqueued, mut changed) = (other.store.signals().enqueued(), other.store.signals().changed());
    // Listening begins with a signal of its own: something may have come before.
    enqueued.changed().await.unwrap();
    let scope = granted(&*store, 1).await;
    let id = accept(&*store, &scope).await;
    enqueued.changed().await.unwrap();
    assert!(store.complete_generation(id, &generated(1), now()).await.unwrap());
    assert_eq!(changed.recv().await.unwrap(), id);
    other.close().await;
}
