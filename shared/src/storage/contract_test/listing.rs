//! Lists.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{accept, accept_new, database, generated, granted, query};
use crate::{
    custom_csr::{KeyType, Status},
    storage::{Acceptance, Deletion, Direction, IdempotencyKey, ListQuery, NewCustomCsr, Order, StoreError},
    testing::{actor, new_custom_csr, now},
};

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
    assert!(store.complete_generation(p256, &generated(1), now()).await.unwrap().is_completed());
    let ids = |query: ListQuery| {
        let (store, scope) = (Arc::clone(&store), scope.clone());
        async move { store.list_custom_csrs(&scope, &query).await.unwrap().rows.iter().map(|csr| csr.id).collect::<Vec<_>>() }
    };
    assert_eq!(ids(ListQuery { status: Some(Status::Active), ..query() }).await, [p256]);
    assert_eq!(ids(ListQuery { key_type: Some(KeyType::Rsa2048), ..query() }).await, [rsa]);
    assert!(ids(ListQuery { status: Some(Status::Active), key_type: Some(KeyType::Rsa2048), ..query() }).await.is_empty());
}

#[tokio::test]
async fn every_page_has_its_place_in_the_whole_list_in_both_directions_from_whichever_end_it_is_counted() {
    let (_test, store) = database().await;
    let scope = granted(&*store, 100).await;
    let mut ids = Vec::new();
    for _ in 0..23 {
        ids.push(accept(&*store, &scope).await);
    }
    for (direction, per_page) in [(Direction::Asc, 5), (Direction::Desc, 5), (Direction::Asc, 7), (Direction::Desc, 23)] {
        let mut listed = Vec::new();
        for page in 1..=23_u32.div_ceil(per_page) {
            let query = ListQuery { page, per_page, direction, ..query() };
            let page = store.list_custom_csrs(&scope, &query).await.unwrap();
            assert_eq!(page.total, 23);
            listed.extend(page.rows.iter().map(|csr| csr.id));
        }
        if direction == Direction::Desc {
            listed.reverse();
        }
        assert_eq!(listed, ids, "{direction:?} by {per_page}");
    }
    for page in [6, u32::MAX] {
        let past = store.list_custom_csrs(&scope, &ListQuery { page, per_page: 5, ..query() }).await.unwrap();
        assert_eq!((past.rows.len(), past.total), (0, 23));
    }
}

#[tokio::test]
async fn the_total_that_is_kept_is_the_number_of_rows_whatever_becomes_of_them() {
    let (test, store) = database().await;
    let scope = granted(&*store, 8).await;
    let agree = |expected: u64| {
        let (store, scope, test) = (&store, &scope, &test);
        async move {
            let kept = store.list_custom_csrs(scope, &query()).await.unwrap().total;
            // A filter counts the rows themselves, and every row has one of these.
            let mut counted = 0;
            for status in [Status::Pending, Status::Active, Status::Failed] {
                counted += store.list_custom_csrs(scope, &ListQuery { status: Some(status), ..query() }).await.unwrap().total;
            }
            let rows = test.number("SELECT COUNT(*) FROM custom_csrs").await.unsigned_abs();
            assert_eq!((kept, counted, rows), (expected, expected, expected));
        }
    };
    agree(0).await;
    let ids = [accept(&*store, &scope).await, accept(&*store, &scope).await, accept(&*store, &scope).await, accept(&*store, &scope).await];
    agree(4).await;
    assert!(store.complete_generation(ids[0], &generated(1), now()).await.unwrap().is_completed());
    assert!(store.fail_generation(ids[1], "no luck", now()).await.unwrap());
    assert!(store.retry_generation(ids[2], 0, Duration::ZERO, now()).await.unwrap());
    agree(4).await;
    let key = IdempotencyKey { key_sha256: vec![1], body_sha256: vec![2] };
    for expected in [true, false] {
        let new = NewCustomCsr { idempotency_key: Some(key.clone()), ..new_custom_csr(&scope, KeyType::P256v1) };
        assert_eq!(matches!(store.accept_custom_csr(&new, &actor(), now()).await.unwrap(), Acceptance::Accepted(_)), expected);
    }
    agree(5).await;
    for id in &ids[..3] {
        assert_eq!(store.delete_custom_csr(&scope, *id, &actor(), now()).await.unwrap(), Deletion::Deleted);
        assert_eq!(store.delete_custom_csr(&scope, *id, &actor(), now()).await.unwrap(), Deletion::NotFound);
    }
    agree(2).await;
    assert!(store.revoke_scope(&scope, &actor(), now()).await.unwrap());
    assert_eq!(store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await.unwrap(), Acceptance::NotGranted);
    agree(2).await;
    store.grant_scope(&scope, None, Some(8), &actor(), now()).await.unwrap();
    // Many at once, some beyond the quota, some deleted twice at the same time, one that is in the table already.
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (store, scope, id) = (Arc::clone(&store), scope.clone(), ids[3]);
        tasks.spawn(async move {
            if number % 5 == 0 {
                store.delete_custom_csr(&scope, id, &actor(), now()).await.unwrap();
            } else {
                store.accept_custom_csr(&new_custom_csr(&scope, KeyType::P256v1), &actor(), now()).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let last = new_custom_csr(&scope, KeyType::P256v1);
    let total = store.list_custom_csrs(&scope, &query()).await.unwrap().total;
    let first = store.list_custom_csrs(&scope, &query()).await.unwrap().rows[0].id;
    assert_eq!(store.delete_custom_csr(&scope, first, &actor(), now()).await.unwrap(), Deletion::Deleted);
    accept_new(&*store, &last).await;
    store.grant_scope(&scope, None, Some(100), &actor(), now()).await.unwrap();
    assert!(store.accept_custom_csr(&last, &actor(), now()).await.is_err(), "an ID that exists: nothing of the transaction stays");
    agree(total).await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_left_out_of_the_list_and_hides_no_other() {
    let (test, store) = database().await;
    let scope = granted(&*store, 3).await;
    let ids = [accept(&*store, &scope).await, accept(&*store, &scope).await, accept(&*store, &scope).await];
    test.execute(&format!("UPDATE custom_csrs SET sans = 'no JSON' WHERE id = '{}'", ids[1])).await;
    let listed = store.list_custom_csrs(&scope, &query()).await.unwrap();
    assert_eq!(listed.rows.iter().map(|csr| csr.id).collect::<Vec<_>>(), [ids[2], ids[0]]);
    assert_eq!(listed.total, 3, "it exists and counts against the quota");
    assert!(matches!(store.find_custom_csr(&scope, ids[1]).await, Err(StoreError::Corrupt(_))), "who asks for it hears of it");
    assert!(store.find_custom_csr(&scope, ids[0]).await.unwrap().is_some());
}
