//! Sets: several custom CSRs by one request, which differ in their keys alone.

use reqwest::Method;
use serde_json::{Value, json};
use shared::{
    bodies::create::Validator,
    ids::CustomCsrId,
    names::{public_suffix::SuffixList, san::SanPolicy},
    testing::{actor, now, zone},
};

use crate::support::{Answer, Api, NO_ID, valid, with};

const PATH: &str = "/api/v4/zones/z/custom_csrs";

/// A body that asks for a set.
fn of(key_types: &Value) -> Value {
    let mut body = with("key_types", key_types.clone());
    body.as_object_mut().unwrap().remove("key_type");
    body
}

fn matched() -> Value {
    of(&json!(["rsa2048", "P256V1"]))
}

async fn post(api: &Api, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let request = api.request(Method::POST, path).bearer_auth(api.all()).json(body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request.send().await.unwrap()).await
}

/// A member of each of the set.
fn each<'a>(answer: &'a Answer, member: &str) -> Vec<&'a str> {
    answer.result().as_array().unwrap_or_else(|| panic!("{answer:?}")).iter().map(|csr| csr[member].as_str().unwrap_or("null")).collect()
}

async fn used(api: &Api) -> u64 {
    api.get(&format!("{PATH}/quota")).await.result()["used"].as_u64().unwrap()
}

/// Ends what is pending, so that it can be rekeyed.
async fn fail(api: &Api, ids: &[&str]) {
    for id in ids {
        assert!(api.store.fail_generation(CustomCsrId::parse(id).unwrap(), "no luck", now()).await.unwrap());
    }
}

#[tokio::test]
async fn a_set_is_made_by_one_post_and_listed_by_its_id() {
    let api = Api::start().await;
    let alone = api.create().await;
    let made = api.post(PATH, &matched()).await;
    assert_eq!((made.status, each(&made, "key_type"), each(&made, "status")), (201, vec!["rsa2048", "p256v1"], vec!["pending", "pending"]));
    let set_id = made.result()[0]["set_id"].as_str().unwrap();
    assert_eq!(each(&made, "set_id"), [set_id, set_id]);
    let location = made.headers["location"].to_str().unwrap();
    assert_eq!(location, format!("{PATH}?set_id={set_id}"));
    let listed = api.get(&format!("{location}&direction=asc")).await;
    assert_eq!((listed.result(), listed.body["result_info"]["total_count"].as_u64()), (made.result(), Some(2)));
    assert_eq!(api.get(&format!("{PATH}/{}", each(&made, "id")[0])).await.result(), &made.result()[0]);
    assert_eq!(api.get(&format!("{PATH}/{alone}")).await.result()["set_id"], Value::Null);
    assert_eq!(api.get(&format!("{PATH}?set_id={NO_ID}")).await.result(), &json!([]));
    let wrong = api.get(&format!("{PATH}?set_id=1")).await;
    assert_eq!((wrong.code(), wrong.body["errors"][0]["source"]["parameter"].as_str()), ((400, 1464), Some("set_id")));
    assert_eq!(used(&api).await, 3);
}

#[tokio::test]
async fn key_types_that_make_no_set_are_told_where_they_are_wrong() {
    let api = Api::start().await;
    for (body, expected) in [
        (of(&json!([])), (1513, "/key_types")),
        (of(&json!(["rsa2048"])), (1513, "/key_types")),
        (of(&json!(["rsa2048", "p256v1", "rsa2048", "p256v1", "rsa2048"])), (1513, "/key_types")),
        (of(&json!(["rsa2048", "RSA2048"])), (1513, "/key_types/1")),
        (of(&json!(["rsa2048", "ed25519"])), (1417, "/key_types/1")),
        (of(&json!(["rsa2048", 5])), (1400, "/key_types/1")),
        (of(&json!("rsa2048,p256v1")), (1400, "/key_types")),
        (with("key_types", json!(["rsa2048", "p256v1"])), (1513, "/key_type")),
    ] {
        let refused = api.post(PATH, &body).await;
        assert_eq!((refused.status, refused.errors()), (400, vec![(expected.0, Some(expected.1))]), "{body}");
    }
    let several = api.post(PATH, &of(&json!(["", "p256v1", "p256v1"]))).await;
    assert_eq!(several.errors(), [(1417, Some("/key_types/0")), (1513, Some("/key_types/2"))]);
    assert_eq!(several.body["errors"][1]["message"].as_str().unwrap().split(". ").next(), Some("The key_types field has ‘p256v1’ twice"));
    assert_eq!(used(&api).await, 0, "nothing was made");
    let absent = api.post(PATH, &with("key_types", json!(null))).await;
    assert_eq!((absent.status, absent.result()["key_type"].as_str()), (201, Some("p256v1")), "null is the same as absent");
}

#[tokio::test]
async fn a_set_may_have_no_type_that_the_default_is() {
    let key_types = "rsa3072 p384 ed25519".split(' ').map(|word| shared::custom_csr::KeyType::parse(word).unwrap());
    let sans = SanPolicy { allow_wildcards: false, suffixes: SuffixList::embedded() };
    let validator = Validator::new(sans).accepting(shared::custom_csr::KeyTypes::new(key_types));
    let api = Api::with(|state| state.validator = validator).await;
    let made = api.post(PATH, &of(&json!(["ed25519", "rsa3072"]))).await;
    assert_eq!((made.status, each(&made, "key_type")), (201, vec!["ed25519", "rsa3072"]));
    let refused = api.post(PATH, &matched()).await;
    assert_eq!(refused.errors(), [(1417, Some("/key_types/0")), (1417, Some("/key_types/1"))]);
}

#[tokio::test]
async fn a_set_is_refused_whole_where_the_quota_has_not_enough_left() {
    let api = Api::start().await;
    api.store.grant_scope(&zone("z"), None, Some(3), &actor(), now()).await.unwrap();
    assert_eq!(api.post(PATH, &matched()).await.status, 201);
    assert_eq!(api.post(PATH, &matched()).await.code(), (403, 1465));
    assert_eq!(used(&api).await, 2);
    assert_eq!(api.post(PATH, &valid()).await.status, 201, "one is left");
}

#[tokio::test]
async fn a_repeated_post_answers_with_the_set_that_it_made() {
    let api = Api::start().await;
    let key = [("idempotency-key", "a")];
    let made = post(&api, PATH, &key, &matched()).await;
    let again = post(&api, PATH, &key, &matched()).await;
    assert_eq!((again.status, again.result()), (201, made.result()));
    assert_eq!((&again.headers["idempotent-replayed"], &again.headers["location"]), (&"true".parse().unwrap(), &made.headers["location"]));
    assert_eq!(post(&api, PATH, &key, &of(&json!(["p256v1", "rsa2048"]))).await.code(), (422, 1466), "another body");
    let ids = each(&made, "id");
    assert_eq!(api.send(Method::DELETE, &format!("{PATH}/{}", ids[0])).await.status, 200);
    assert_eq!(each(&post(&api, PATH, &key, &matched()).await, "id"), ids[1..], "what is left of it");
    assert_eq!(api.send(Method::DELETE, &format!("{PATH}/{}", ids[1])).await.status, 200);
    assert_eq!(post(&api, PATH, &key, &matched()).await.code(), (404, 1419));
    assert_eq!(used(&api).await, 0);
}

#[tokio::test]
async fn a_post_that_waits_answers_when_every_csr_of_the_set_is_made() {
    let mut api = Api::with_workers(true).await;
    let made = post(&api, PATH, &[("prefer", "wait=30")], &matched()).await;
    assert_eq!((made.headers["preference-applied"].to_str().unwrap(), each(&made, "status")), ("wait=30", vec!["active", "active"]));
    assert!(each(&made, "csr").iter().all(|csr| csr.ends_with("-----END CERTIFICATE REQUEST-----\n")), "{made:?}");
    let rekey = format!("{PATH}/{}/rekey", each(&made, "id")[1]);
    let rekeyed = post(&api, &rekey, &[("prefer", "wait=30")], &json!({})).await;
    assert_eq!(each(&rekeyed, "status"), ["active", "active"]);
    api.drain_workers().await;
}

#[tokio::test]
async fn a_wait_for_a_set_ends_after_its_seconds_together() {
    let api = Api::start().await;
    let began = std::time::Instant::now();
    let made = post(&api, PATH, &[("prefer", "wait=1")], &matched()).await;
    assert_eq!(each(&made, "status"), ["pending", "pending"]);
    assert!((1_000..2_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_rekey_of_one_of_a_set_rekeys_the_set() {
    let api = Api::start().await;
    let made = api.post(PATH, &matched()).await;
    let (ids, set_id) = (each(&made, "id"), each(&made, "set_id")[0]);
    let rekey = |id: &str| format!("{PATH}/{id}/rekey");
    assert_eq!(api.post(&rekey(ids[0]), &json!({})).await.code(), (409, 1474));
    fail(&api, &ids[..1]).await;
    assert_eq!(api.post(&rekey(ids[0]), &json!({})).await.code(), (409, 1474), "the other one is pending");
    fail(&api, &ids[1..]).await;

    let key = [("idempotency-key", "a")];
    let rekeyed = post(&api, &rekey(ids[1]), &key, &json!({ "name": "new", "key_type": "rsa2048" })).await;
    assert_eq!((rekeyed.status, each(&rekeyed, "replaces"), each(&rekeyed, "set_id")), (201, ids.clone(), vec![set_id; 2]));
    assert_eq!((each(&rekeyed, "key_type"), each(&rekeyed, "name")), (vec!["rsa2048", "p256v1"], vec!["new", "new"]));
    let warnings = rekeyed.body["messages"].as_array().unwrap();
    assert_eq!((warnings.len(), &warnings[0]["code"], &warnings[0]["source"]["pointer"]), (1, &json!(2005), &json!("/key_type")));
    // It is found again though those of the set that are newest are pending now.
    let again = post(&api, &rekey(ids[1]), &key, &json!({ "name": "new", "key_type": "rsa2048" })).await;
    assert_eq!((again.status, again.result()), (201, rekeyed.result()));
    assert_eq!(used(&api).await, 4);

    let newer = each(&rekeyed, "id");
    fail(&api, &newer).await;
    let third = api.post(&rekey(ids[0]), &json!({})).await;
    assert_eq!(each(&third, "replaces"), newer, "the newest of each key type, whichever is named");
    let listed = api.get(&format!("{PATH}?set_id={set_id}")).await;
    assert_eq!(listed.result().as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn what_is_left_of_a_set_is_rekeyed_alone() {
    let api = Api::start().await;
    let made = api.post(PATH, &matched()).await;
    let ids = each(&made, "id");
    assert_eq!(api.send(Method::DELETE, &format!("{PATH}/{}", ids[1])).await.status, 200);
    fail(&api, &ids[..1]).await;
    let rekeyed = api.post(&format!("{PATH}/{}/rekey", ids[0]), &json!({})).await;
    assert_eq!((each(&rekeyed, "key_type"), each(&rekeyed, "replaces")), (vec!["rsa2048"], vec![ids[0]]));
}

#[tokio::test]
async fn a_rekey_of_a_set_is_refused_whole_where_the_quota_has_not_enough_left() {
    let api = Api::start().await;
    let made = api.post(PATH, &matched()).await;
    fail(&api, &each(&made, "id")).await;
    api.store.grant_scope(&zone("z"), None, Some(3), &actor(), now()).await.unwrap();
    assert_eq!(api.post(&format!("{PATH}/{}/rekey", each(&made, "id")[0]), &json!({})).await.code(), (403, 1465));
    assert_eq!(used(&api).await, 2);
}

#[tokio::test]
async fn sets_count_to_the_bound_of_pending_custom_csrs() {
    let api = Api::start().await;
    for _ in 0..Api::MAX_PENDING / 2 {
        assert_eq!(api.post(PATH, &matched()).await.status, 201);
    }
    let refused = api.post(PATH, &matched()).await;
    assert_eq!(refused.code(), (429, 1470));
    assert_eq!(used(&api).await, u64::from(Api::MAX_PENDING));
}
