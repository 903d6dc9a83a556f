//! Webhooks: made, read, changed, tried and deleted.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::{
    clock::Timestamp,
    events,
    ids::{CustomCsrId, WebhookId},
    outbound::{Gate, Reach},
    storage::GeneratedCsr,
    testing::now,
};

use crate::support::{Answer, Api, NO_ID, PREFIXES};

const PATH: &str = "/api/v4/zones/z/webhooks";
const HOUR: Duration = Duration::from_hours(1);

fn wanted() -> Value {
    json!({ "url": "https://8.8.8.8/hook", "events": ["custom_csr.active", "custom_certificate.expiring"], "description": "mine" })
}

async fn made(api: &Api, path: &str) -> String {
    let answer = api.post(path, &wanted()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.result()["id"].as_str().unwrap().to_owned()
}

async fn patched(api: &Api, path: &str, body: &Value) -> Answer {
    Answer::of(api.request(Method::PATCH, path).bearer_auth(api.all()).json(body).send().await.unwrap()).await
}

#[tokio::test]
async fn a_webhook_is_made_with_a_secret_that_only_its_own_answer_has_and_read_changed_and_deleted() {
    let api = Api::start().await;
    for prefix in PREFIXES {
        for (scope, zone_id, account_id) in [("zones/z", json!("z"), json!(null)), ("accounts/a", json!(null), json!("a"))] {
            let path = format!("{prefix}/{scope}/webhooks");
            let answer = api.post(&path, &wanted()).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            let result = answer.result();
            let id = result["id"].as_str().unwrap();
            assert_eq!(answer.headers["location"].to_str().unwrap(), format!("{path}/{id}"));
            let secret = result["secret"].as_str().unwrap();
            assert!(secret.starts_with("whsec_") && secret.len() == "whsec_".len() + 32, "{secret}");
            let expected = json!({
                "id": id, "zone_id": zone_id, "account_id": account_id, "url": "https://8.8.8.8/hook",
                "events": ["custom_csr.active", "custom_certificate.expiring"], "description": "mine", "enabled": true,
                "disabled_reason": null, "created_at": result["created_at"], "updated_at": result["updated_at"],
            });
            let one = format!("{path}/{id}");
            assert_eq!(*api.get(&one).await.result(), expected);
            assert_eq!(*api.get(&path).await.result(), json!([expected]));
            let changed = patched(&api, &one, &json!({ "events": ["*"], "enabled": false, "description": null })).await;
            assert_eq!((&changed.result()["events"], &changed.result()["enabled"]), (&json!(["*"]), &json!(false)));
            assert_eq!(changed.result()["description"], json!(null));
            assert_eq!(changed.result()["url"], "https://8.8.8.8/hook");
            assert_eq!(*api.send(Method::DELETE, &one).await.result(), json!({ "id": id }));
            assert_eq!(api.get(&one).await.code(), (404, 1493));
            assert_eq!(*api.get(&path).await.result(), json!([]));
        }
    }
}

#[tokio::test]
async fn every_fault_of_a_webhook_has_its_code_and_place() {
    let api = Api::start().await;
    for (body, errors) in [
        (json!({}), vec![(1490, Some("/url")), (1491, Some("/events"))]),
        (json!({ "url": "http://8.8.8.8/", "events": ["nothing"] }), vec![(1490, Some("/url")), (1491, Some("/events/0"))]),
        (json!({ "url": "https://localhost/", "events": ["*"] }), vec![(1490, Some("/url"))]),
        (json!({ "url": "https://[::ffff:10.1.1.1]/", "events": ["*"] }), vec![(1490, Some("/url"))]),
        (json!({ "url": "https://8.8.8.8/", "events": ["*"], "enabled": 1 }), vec![(1400, Some("/enabled"))]),
        (json!({ "url": "https://8.8.8.8/", "events": ["*"], "description": "x".repeat(1025) }), vec![(1461, Some("/description"))]),
    ] {
        let answer = api.post(PATH, &body).await;
        assert_eq!((answer.status, answer.errors()), (400, errors), "{body}");
    }
    let one = format!("{PATH}/{}", made(&api, PATH).await);
    assert_eq!(patched(&api, &one, &json!({ "url": "https://127.0.0.1/" })).await.code(), (400, 1490));
    assert_eq!(patched(&api, &one, &json!({ "events": [] })).await.code(), (400, 1491));
    for (method, suffix) in
        [(Method::GET, ""), (Method::PATCH, ""), (Method::DELETE, ""), (Method::POST, "/ping"), (Method::GET, "/deliveries")]
    {
        for (id, code) in [("x", (400, 1492)), (NO_ID, (404, 1493))] {
            let request = api.request(method.clone(), &format!("{PATH}/{id}{suffix}")).bearer_auth(api.all()).json(&json!({}));
            assert_eq!(Answer::of(request.send().await.unwrap()).await.code(), code, "{method} {id}{suffix}");
        }
    }
    for _ in 1..10 {
        made(&api, PATH).await;
    }
    assert_eq!(api.post(PATH, &wanted()).await.code(), (409, 1494));
    assert_eq!(api.post("/api/v4/zones/unheard-of/webhooks", &wanted()).await.code(), (403, 1404));
}

#[tokio::test]
async fn webhooks_have_permissions_of_their_own_and_tenants_never_meet() {
    let api = Api::start().await;
    let id = made(&api, PATH).await;
    let ask = async |method: Method, path: &str, scope: &str| {
        let token = api.token(&["z", "y"], &[], Some(scope), HOUR);
        let request = api.request(method, path).bearer_auth(token).json(&wanted());
        Answer::of(request.send().await.unwrap()).await.status
    };
    let one = format!("{PATH}/{id}");
    for (scope, read, write) in [("webhooks:read", 200, 403), ("webhooks:write", 200, 200), ("custom_csrs:write", 403, 403)] {
        assert_eq!(ask(Method::GET, &one, scope).await, read, "{scope}");
        assert_eq!(ask(Method::GET, &format!("{one}/deliveries"), scope).await, read, "{scope}");
        assert_eq!(ask(Method::PATCH, &one, scope).await, write, "{scope}");
        let pinged = if write == 200 { 201 } else { write };
        assert_eq!(ask(Method::POST, &format!("{one}/ping"), scope).await, pinged, "{scope}");
    }
    assert_eq!(ask(Method::GET, &format!("/api/v4/zones/y/webhooks/{id}"), "webhooks:write").await, 404);
    assert_eq!(ask(Method::DELETE, &format!("/api/v4/zones/y/webhooks/{id}"), "webhooks:write").await, 404);
    let deliveries = api.get(&format!("{one}/deliveries")).await;
    assert_eq!((&deliveries.result()[0]["event"], &deliveries.result()[0]["status"]), (&json!("ping"), &json!("pending")));
}

#[tokio::test]
async fn a_process_without_a_master_key_makes_webhooks_once_a_worker_has_made_the_key_for_their_secrets() {
    let api = Api::with(|state| {
        state.sealer = None;
        state.gate = Gate::new(Reach::Anywhere);
    })
    .await;
    assert_eq!(api.post(PATH, &wanted()).await.code(), (503, 1471));
    let sealer = shared::seal::Sealer::new(shared::seal::MasterKey::generate().unwrap(), Vec::new());
    let mut key = shared::webhook_secret::WebhookKey::generate("k".to_owned(), &sealer).unwrap();
    key.master_key_id = api.store.list_master_keys().await.unwrap()[0].id.clone();
    api.store.add_webhook_key(&key, now()).await.unwrap();
    assert_eq!(
        api.post(PATH, &json!({ "url": "http://127.0.0.1:1/", "events": ["*"] })).await.status,
        201,
        "private targets are allowed here"
    );
}

#[tokio::test]
async fn an_event_tells_what_get_shows_but_for_the_pem() {
    let api = Api::start().await;
    let answer = api.post(PATH, &json!({ "url": "https://8.8.8.8/", "events": ["*"] })).await;
    let hook = WebhookId::parse(answer.result()["id"].as_str().unwrap()).unwrap();
    let id = api.create().await;
    let made = GeneratedCsr {
        csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n".into(),
        spki_sha256: [7; 32],
        master_key_id: api.store.list_master_keys().await.unwrap()[0].id.clone(),
        sealed_private_key: vec![7; 100],
    };
    api.store.complete_generation(CustomCsrId::parse(&id).unwrap(), &made, now()).await.unwrap();
    let due = api.store.take_due(hook, 10, HOUR, now()).await.unwrap();
    let body: Value = serde_json::from_str(&events::body(&due[0].event, due[0].occurred_at, &due[0].data, None).unwrap()).unwrap();
    let mut shown = api.get(&format!("/api/v4/zones/z/custom_csrs/{id}")).await.result().clone();
    shown.as_object_mut().unwrap().remove("csr");
    assert_eq!(body, json!({ "type": "custom_csr.active", "timestamp": shown["updated_at"], "data": shown }));
    assert!(Timestamp::parse_rfc3339(body["timestamp"].as_str().unwrap()).is_some());
}
