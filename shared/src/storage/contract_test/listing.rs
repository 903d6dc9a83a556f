//! Lists.

use std::{collections::HashSet, sync::Arc};

use super::{accept, accept_new, database, generated, granted, query};
use crate::{
    model::{KeyType, Status},
    storage::{Direction, ListQuery, Order},
    testing::{new_custom_csr, now},
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
    assert!(store.complete_generation(p256, &generated(1), now()).await.unwrap());
    let ids = |query: ListQuery| {
        let (store, scope) = (Arc::clone(&store), scope.clone());
        async move { store.list_custom_csrs(&scope, &query).await.unwrap().rows.iter().map(|csr| csr.id).collect::<Vec<_>>() }
    };
    assert_eq!(ids(ListQuery { status: Some(Status::Active), ..query() }).await, [p256]);
    assert_eq!(ids(ListQuery { key_type: Some(KeyType::Rsa2048), ..query() }).await, [rsa]);
    assert!(ids(ListQuery { status: Some(Status::Active), key_type: Some(KeyType::Rsa2048), ..query() }).await.is_empty());
}
