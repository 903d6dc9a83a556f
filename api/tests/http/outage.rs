//! A database that is locked, full or broken.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::support::{Api, valid};

const PATH: &str = "/api/v4/zones/z/custom_csrs";

#[tokio::test]
async fn a_locked_database_is_1471_in_under_five_seconds_and_reads_go_on() {
    let api = Api::start().await;
    let id = api.create().await;
    let locked = api.test.lock_writers().await;
    let started = Instant::now();
    let answer = api.post(PATH, &valid()).await;
    assert_eq!(answer.code(), (503, 1471));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(api.send(Method::DELETE, &format!("{PATH}/{id}")).await.code(), (503, 1471));
    assert_eq!(api.get(&format!("{PATH}/{id}")).await.status, 200, "readers do not wait for writers");
    drop(locked);
    assert_eq!(api.post(PATH, &valid()).await.status, 201);
    assert_eq!(api.get(PATH).await.body["result_info"]["total_count"], 2, "the refused request wrote nothing");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_1500_and_says_no_more() {
    let api = Api::start().await;
    let id = api.create().await;
    api.test.execute("UPDATE custom_csrs SET sans = 'secret'").await;
    let answer = api.get(&format!("{PATH}/{id}")).await;
    assert_eq!(answer.code(), (500, 1500));
    assert_eq!(answer.body["errors"], serde_json::json!([{"code": 1500, "message": "Internal Server Error"}]));
}
