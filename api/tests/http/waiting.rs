//! `Prefer: wait` and `Idempotency-Key`.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use shared::{ids::CustomCsrId, testing::now};

use crate::support::{Answer, Api, valid, with};

const PATH: &str = "/api/v4/zones/z/custom_csrs";

async fn post(api: &Api, headers: &[(&str, &str)], body: &Value) -> Answer {
    let request = api.request(Method::POST, PATH).bearer_auth(api.all()).json(body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request.send().await.unwrap()).await
}

async fn get_waiting(api: &Api, id: &str, prefer: &str) -> Answer {
    let request = api.request(Method::GET, &format!("{PATH}/{id}")).bearer_auth(api.all()).header("prefer", prefer);
    Answer::of(request.send().await.unwrap()).await
}

fn applied(answer: &Answer) -> Option<&str> {
    answer.headers.get("preference-applied").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_post_that_waits_answers_201_with_the_csr_in_it() {
    let mut api = Api::with_workers(true).await;
    let answer = post(&api, &[("prefer", "wait=60")], &valid()).await;
    assert_eq!((answer.status, applied(&answer)), (201, Some("wait=30")));
    assert_eq!(answer.result()["status"], "active");
    assert!(answer.result()["csr"].as_str().unwrap().ends_with("-----END CERTIFICATE REQUEST-----\n"));
    let without = post(&api, &[("prefer", "wait=soon")], &valid()).await;
    assert_eq!((without.result()["status"].as_str(), applied(&without)), (Some("pending"), None), "malformed: ignored");
    api.drain_workers().await;
}

#[tokio::test]
async fn a_wait_ends_after_its_seconds_with_what_there_is() {
    let api = Api::start().await;
    let id = api.create().await;
    let started = Instant::now();
    let answer = get_waiting(&api, &id, "wait=1").await;
    assert_eq!((answer.result()["status"].as_str(), applied(&answer)), (Some("pending"), Some("wait=1")));
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(applied(&get_waiting(&api, &id, "wait=0").await), Some("wait=0"));
}

#[tokio::test]
async fn a_wait_is_woken_by_the_end_and_by_a_deletion_and_is_over_at_once_where_nothing_is_pending() {
    let api = Api::start().await;
    let (failed, deleted) = (api.create().await, api.create().await);
    let parsed = CustomCsrId::parse(&failed).unwrap();
    let fail = async { assert!(api.store.fail_generation(parsed, "no luck", now()).await.unwrap()) };
    let started = Instant::now();
    let (answer, ()) = tokio::join!(get_waiting(&api, &failed, "wait=30"), fail);
    assert_eq!((answer.result()["status"].as_str(), applied(&answer)), (Some("failed"), Some("wait=30")));
    assert_eq!(get_waiting(&api, &failed, "wait=30").await.result()["status"], "failed");
    let path = format!("{PATH}/{deleted}");
    let delete = api.send(Method::DELETE, &path);
    let (answer, _) = tokio::join!(get_waiting(&api, &deleted, "wait=30"), delete);
    assert_eq!(answer.code(), (404, 1419));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn over_the_bound_a_wait_is_answered_at_once_and_a_stop_ends_the_others() {
    let mut api = Api::start().await;
    let id = api.create().await;
    let url = format!("{}{PATH}/{id}", api.base);
    let token = api.all();
    let waiting: Vec<_> =
        (0..2).map(|_| tokio::spawn(reqwest::Client::new().get(&url).bearer_auth(&token).header("prefer", "wait=30").send())).collect();
    // Two places: once both are taken, a third request is answered without the preference.
    while applied(&get_waiting(&api, &id, "wait=0").await).is_some() {
        tokio::task::yield_now().await;
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    assert!(api.stop().await);
    for answer in waiting {
        assert_eq!(Answer::of(answer.await.unwrap().unwrap()).await.result()["status"], "pending");
    }
}

#[tokio::test]
async fn a_wait_ends_when_its_client_goes_away() {
    let api = Api::start().await;
    let id = api.create().await;
    let (url, token) = (format!("{}{PATH}/{id}", api.base), api.all());
    let waiting: Vec<_> =
        (0..2).map(|_| tokio::spawn(reqwest::Client::new().get(&url).bearer_auth(&token).header("prefer", "wait=30").send())).collect();
    while applied(&get_waiting(&api, &id, "wait=0").await).is_some() {
        tokio::task::yield_now().await;
    }
    for request in waiting {
        request.abort();
    }
    // Long before their 30 seconds are over, their places are free again.
    let freed = async {
        while applied(&get_waiting(&api, &id, "wait=0").await).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), freed).await.expect("both places are still taken");
}

#[tokio::test]
async fn a_repeated_key_answers_with_the_same_custom_csr_and_uses_no_quota() {
    let api = Api::start().await;
    api.grant("z", Some(1)).await;
    let key = [("idempotency-key", "a-key")];
    let first = post(&api, &key, &valid()).await;
    let again = post(&api, &key, &valid()).await;
    assert_eq!((first.status, again.status), (201, 201), "{again:?}");
    assert_eq!((first.result(), &first.headers["location"]), (again.result(), &again.headers["location"]));
    assert_eq!(post(&api, &key, &with("name", json!("other"))).await.code(), (422, 1466));
    assert_eq!(post(&api, &key, &with("country", json!("UK"))).await.code(), (400, 1460), "faults of the body come first");
    assert_eq!(post(&api, &[("idempotency-key", "other")], &valid()).await.code(), (403, 1465));
    let id = first.result()["id"].as_str().unwrap();
    assert_eq!(api.send(Method::DELETE, &format!("{PATH}/{id}")).await.status, 200);
    assert_eq!(post(&api, &key, &valid()).await.code(), (404, 1419));
}

#[tokio::test]
async fn a_key_that_is_none_is_reported_with_the_faults_of_the_body() {
    let api = Api::start().await;
    let bad = [("idempotency-key", "two words")];
    assert_eq!(post(&api, &bad, &valid()).await.errors(), [(1464, None)]);
    assert_eq!(post(&api, &bad, &with("country", json!("UK"))).await.errors(), [(1460, Some("/country")), (1464, None)]);
    assert_eq!(post(&api, &bad, &json!([])).await.errors(), [(1400, None)], "1400 of the whole body stands alone");
}

#[tokio::test]
async fn fifty_equal_posts_at_once_make_one_custom_csr() {
    let api = Api::start().await;
    let body = valid();
    let posts = (0..50).map(|_| post(&api, &[("idempotency-key", "fifty")], &body));
    let answers = futures::future::join_all(posts).await;
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.result()["id"] == answers[0].result()["id"]));
    assert_eq!(api.get(PATH).await.body["result_info"]["total_count"], 1);
}
