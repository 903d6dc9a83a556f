//! Lists.

use serde_json::json;

use crate::support::{Api, with};

const PATH: &str = "/api/v4/zones/z/custom_csrs";

async fn filled() -> Api {
    let api = Api::start().await;
    for name in ["b", "B", "ä", "a", ""] {
        assert_eq!(api.post(PATH, &with("name", json!(name))).await.status, 201);
    }
    assert_eq!(api.post(PATH, &with("key_type", json!("RSA2048"))).await.result()["key_type"], "rsa2048");
    assert_eq!(api.post(PATH, &with("sans", json!(["100_percent.foo.com"]))).await.status, 201);
    api
}

async fn names(api: &Api, query: &str) -> String {
    let answer = api.get(&format!("{PATH}?{query}")).await;
    answer.result().as_array().unwrap().iter().map(|csr| csr["name"].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn pages_come_newest_first_and_past_the_last_one_is_an_empty_array() {
    let api = filled().await;
    let first = api.get(&format!("{PATH}?per_page=5.0&page=1")).await;
    assert_eq!(first.body["result_info"], json!({"page": 1, "per_page": 5, "count": 5, "total_count": 7, "total_pages": 2}));
    let created: Vec<_> = first.result().as_array().unwrap().iter().map(|csr| csr["created_at"].as_str().unwrap().to_owned()).collect();
    assert!(created.windows(2).all(|pair| pair[0] >= pair[1]), "{created:?}");
    assert_eq!(api.get(&format!("{PATH}?per_page=5&page=2.0")).await.result().as_array().unwrap().len(), 2);
    let past = api.get(&format!("{PATH}?per_page=5&page=2147483647")).await;
    assert_eq!((past.status, past.result()), (200, &json!([])));
    assert_eq!(past.body["result_info"]["total_pages"], 2);
    let nothing = api.get("/api/v4/zones/y/custom_csrs").await;
    assert_eq!(nothing.body["result_info"], json!({"page": 1, "per_page": 20, "count": 0, "total_count": 0, "total_pages": 0}));
}

#[tokio::test]
async fn names_sort_by_code_point_with_null_last_both_ways() {
    let api = filled().await;
    assert_eq!(names(&api, "order=name&direction=asc").await, "Babä---");
    assert_eq!(names(&api, "order=name").await, "äbaB---");
}

#[tokio::test]
async fn filters_and_search_leave_what_they_name() {
    let api = filled().await;
    let total = |query: &'static str| {
        let api = &api;
        async move { api.get(&format!("{PATH}?{query}")).await.body["result_info"]["total_count"].as_u64().unwrap() }
    };
    assert_eq!(total("key_type=rsa2048").await, 1);
    assert_eq!(total("status=pending").await, 7);
    assert_eq!(total("status=active").await, 0);
    assert_eq!(total("search=100_PERCENT").await, 1);
    assert_eq!(total("search=%25").await, 0);
    assert_eq!(total("search=_").await, 1);
    assert_eq!(total("search=%00").await, 0);
    assert_eq!(total("search=www.foo").await, 7);
}

#[tokio::test]
async fn every_parameter_out_of_range_is_reported_at_once() {
    let api = filled().await;
    let search = "x".repeat(256);
    let answer = api.get(&format!("{PATH}?page=0&per_page=51&order=id&direction=x&status=x&key_type=x&search={search}")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.errors(), vec![(1464, None); 7]);
    let errors = answer.body["errors"].as_array().unwrap();
    let messages: Vec<&str> = errors.iter().map(|error| error["message"].as_str().unwrap()).collect();
    for (name, message) in ["page", "per_page", "order", "direction", "status", "key_type", "search"].into_iter().zip(messages) {
        assert!(message.contains(&format!("query parameter {name} must ")), "{message}");
    }
}
