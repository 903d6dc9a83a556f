//! The OpenAPI document, Swagger UI and health.

use reqwest::Method;
use serde_json::Value;
use shared::{
    codes::{ErrorCode, WarningCode},
    testing::zone,
};

use crate::support::{Answer, Api};

async fn text(api: &Api, path: &str) -> (String, String) {
    let response = api.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200, "{path}");
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    (content_type, response.text().await.unwrap())
}

#[tokio::test]
async fn the_document_is_the_committed_one_and_is_served_as_json_and_as_yaml() {
    let api = Api::start().await;
    let (content_type, yaml) = text(&api, "/openapi.yaml").await;
    assert_eq!(content_type, "application/yaml");
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml")).unwrap();
    assert!(yaml == committed, "openapi.yaml is stale: csrd openapi > openapi.yaml");
    let (content_type, json) = text(&api, "/openapi.json").await;
    assert_eq!(content_type, "application/json");
    let (json, yaml): (Value, Value) = (serde_json::from_str(&json).unwrap(), serde_saphyr::from_str(&yaml).unwrap());
    assert_eq!(json, yaml);
    assert_eq!(json["openapi"], "3.0.3");
    assert_eq!(json["paths"].as_object().unwrap().len(), 25);
    let listed = json["components"]["schemas"]["Message"]["properties"]["code"]["x-error-codes"].as_array().unwrap();
    let page = text(&api, "/docs/codes").await.1;
    for code in ErrorCode::ALL {
        let is_it =
            |row: &&Value| (row["code"].as_u64(), row["status"].as_u64()) == (Some(code.number().into()), Some(code.status().into()));
        assert!(listed.iter().any(|row| is_it(&row)), "{code:?} is documented");
        assert!(page.contains(&format!("<tr><td>{}</td><td>{}</td>", code.number(), code.status())), "{code:?} is on the page");
    }
    for code in WarningCode::ALL {
        assert!(listed.iter().any(|row| row["code"] == code.number()), "{code:?} is documented");
        assert!(page.contains(&format!("<tr><td>{}</td><td>–</td>", code.number())), "{code:?} is on the page");
    }
}

#[tokio::test]
async fn swagger_ui_has_the_document_in_it_and_may_load_nothing_from_elsewhere() {
    let api = Api::start().await;
    let response = api.request(Method::GET, "/docs").send().await.unwrap();
    assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let html = response.text().await.unwrap();
    assert!(html.contains("<title>csrd API</title>") && !html.contains("<title>Swagger UI</title>"));
    assert!(html.contains("SwaggerUIBundle") && html.contains("\"openapi\":\"3.0.3\"") && !html.contains("\"openapi\":\"3.0.0\""));
    let root = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    assert_eq!(root.get(format!("{}/", api.base)).send().await.unwrap().headers()["location"], "/docs");
}

#[tokio::test]
async fn an_api_without_workers_is_ready_and_one_whose_worker_stopped_is_not() {
    let api = Api::start().await;
    assert_eq!(api.get("/health/live").await.status, 200);
    assert_eq!(api.get("/health/ready").await.status, 200);
    let mut api = Api::with_workers(true).await;
    while api.get("/health/ready").await.status != 200 {
        tokio::task::yield_now().await;
    }
    api.drain_workers().await;
    let answer = api.get("/health/ready").await;
    assert_eq!(answer.code(), (503, 1471));
    assert!(answer.body["errors"][0]["message"].as_str().unwrap().contains("worker"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn without_our_tables_the_service_is_not_ready_and_names_migrations() {
    let api = Api::start().await;
    api.test.execute("ALTER TABLE scopes RENAME TO gone").await;
    let answer = Answer::of(api.request(Method::GET, "/health/ready").send().await.unwrap()).await;
    assert_eq!(answer.code(), (503, 1471));
    assert!(answer.body["errors"][0]["message"].as_str().unwrap().contains("migrations"));
    assert!(api.store.find_scope(&zone("z")).await.is_err());
    assert_eq!(api.get("/api/v4/zones/z/custom_csrs?status=active").await.status, 200, "a filtered list needs no scopes table");
}
