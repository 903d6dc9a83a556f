//! What each operation answers.

use reqwest::Method;
use serde_json::{Value, json};
use shared::{
    custom_csr::KeyType,
    storage::Acceptance,
    testing::{actor, new_custom_csr, now, zone},
};

use crate::support::{Answer, Api, NO_ID, PREFIXES, valid, with};

#[tokio::test]
async fn a_post_answers_201_pending_with_every_field_and_a_location_under_its_own_prefix() {
    let api = Api::start().await;
    for prefix in PREFIXES {
        for (scope, zone_id) in [("zones/z", json!("z")), ("accounts/a", json!(null))] {
            let path = format!("{prefix}/{scope}/custom_csrs");
            let mut body = valid();
            body["name"] = json!("  ");
            body["description"] = json!("a\nb");
            let answer = api.post(&path, &body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            let result = answer.result();
            let id = result["id"].as_str().unwrap();
            assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'));
            assert_eq!(answer.headers["location"].to_str().unwrap(), format!("{path}/{id}"));
            assert_eq!(result["created_at"].as_str().unwrap().len(), "2026-11-24T14:00:28.426324Z".len());
            let mut expected = json!({
                "id": id, "status": "pending", "created_at": result["created_at"], "updated_at": result["created_at"],
                "account_tag": "a", "zone_id": zone_id, "organizational_unit": null, "name": null, "csr": null,
                "replaces": null, "set_id": null, "custom_certificate_ids": [],
            });
            for (name, value) in body.as_object().unwrap().iter().filter(|(name, _)| *name != "name") {
                expected[name] = value.clone();
            }
            assert_eq!(*result, expected);
            assert_eq!(*api.get(&format!("{path}/{id}")).await.result(), expected);
        }
    }
}

#[tokio::test]
async fn a_custom_csr_becomes_active_with_a_pem_and_can_be_deleted_once() {
    let mut api = Api::with_workers(true).await;
    let path = format!("/api/v4/zones/z/custom_csrs/{}", api.create().await);
    let active = loop {
        let answer = api.get(&path).await;
        if answer.result()["status"] != "pending" {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(active.result()["status"], "active");
    assert!(active.result()["csr"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
    assert!(active.result()["updated_at"].as_str() > active.result()["created_at"].as_str());
    let deleted =
        api.send(Method::DELETE, &path.to_uppercase().replace("/API/V4/ZONES/Z/CUSTOM_CSRS", "/api/v4/zones/z/custom_csrs")).await;
    assert_eq!(*deleted.result(), json!({ "id": active.result()["id"] }), "hexadecimal in either case is one ID");
    assert_eq!(api.send(Method::DELETE, &path).await.code(), (404, 1419));
    assert_eq!(api.get(&path).await.code(), (404, 1419));
    api.drain_workers().await;
}

#[tokio::test]
async fn a_failed_custom_csr_says_why() {
    let api = Api::start().await;
    let id = api.create().await;
    assert!(api.get(&format!("/api/v4/zones/z/custom_csrs/{id}")).await.result().get("error").is_none());
    let parsed = shared::ids::CustomCsrId::parse(&id).unwrap();
    assert!(api.store.fail_generation(parsed, "no luck", now()).await.unwrap());
    let failed = api.get(&format!("/api/v4/zones/z/custom_csrs/{id}")).await;
    assert_eq!((&failed.result()["status"], &failed.result()["error"]), (&json!("failed"), &json!("no luck")));
}

#[tokio::test]
async fn a_sample_of_each_code_of_the_body_comes_with_its_status_pointer_and_text() {
    let api = Api::start().await;
    let cases: Vec<(Value, u64, &str)> = vec![
        (json!([]), 1400, ""),
        (with("country", json!(5)), 1400, "/country"),
        (with("country", json!(null)), 1405, "/country"),
        (with("state", json!("")), 1406, "/state"),
        (with("locality", json!(" ")), 1407, "/locality"),
        (with("organization", json!(null)), 1408, "/organization"),
        (with("common_name", json!("")), 1409, "/common_name"),
        (with("common_name", json!("x".repeat(65))), 1410, "/common_name"),
        (with("sans", json!([])), 1411, "/sans"),
        (with("sans", json!(["a b"])), 1412, "/sans/0"),
        (with("sans", json!(["foo.com", "é.com"])), 1413, "/sans/1"),
        (with("sans", json!(["x.test"])), 1414, "/sans/0"),
        (with("sans", json!(["Co.Uk"])), 1415, "/sans/0"),
        (with("sans", json!(["www.example.com"])), 1416, "/sans/0"),
        (with("key_type", json!("rsa4096")), 1417, "/key_type"),
        (with("country", json!("UK")), 1460, "/country"),
        (with("state", json!("x".repeat(129))), 1461, "/state"),
        (with("name", json!("a\u{0}")), 1462, "/name"),
        (with("sans", json!(vec!["foo.com"; 101])), 1463, "/sans"),
    ];
    for (body, code, pointer) in cases {
        let answer = api.post("/api/v4/zones/z/custom_csrs", &body).await;
        assert_eq!(answer.status, 400);
        let pointer = Some(pointer).filter(|pointer| !pointer.is_empty());
        assert_eq!(answer.errors(), [(code, pointer)], "{body}");
    }
    let answer = api.post("/api/v4/zones/z/custom_csrs", &with("sans", json!(["Co.Uk"]))).await;
    let text = "Unable to parse subject alternative name(s) (SAN) - publicsuffix: cannot derive eTLD+1 for domain \"co.uk\". Check your input and try again.";
    assert_eq!(answer.body["errors"][0]["message"], text);
    assert_eq!(api.get("/api/v4/zones/z/custom_csrs").await.body["result_info"]["total_count"], 0, "nothing was written");
}

#[tokio::test]
async fn all_faults_of_a_body_come_together_in_the_order_of_their_codes() {
    let api = Api::start().await;
    let answer = api.post("/api/v4/zones/z/custom_csrs", &json!({"sans": ["co.uk", 5], "key_type": "x", "country": "UK"})).await;
    let expected = [
        (1400, Some("/sans/1")),
        (1406, Some("/state")),
        (1407, Some("/locality")),
        (1408, Some("/organization")),
        (1409, Some("/common_name")),
        (1415, Some("/sans/0")),
        (1417, Some("/key_type")),
        (1460, Some("/country")),
    ];
    assert_eq!(answer.errors(), expected);
}

#[tokio::test]
async fn warnings_come_with_the_201() {
    let api = Api::start().await;
    let answer = api.post("/api/v4/zones/z/custom_csrs", &with("sans", json!(["a_b.foo.com"]))).await;
    let messages = answer.body["messages"].as_array().unwrap();
    let warnings: Vec<_> = messages.iter().map(|m| (m["code"].as_u64().unwrap(), m["source"]["pointer"].as_str().unwrap())).collect();
    assert_eq!((answer.status, warnings), (201, vec![(2000, "/common_name"), (2001, "/sans/0")]));
}

#[tokio::test]
async fn without_grant_quota_or_room_a_post_is_refused_before_its_body_is_judged_where_the_order_says_so() {
    let api = Api::start().await;
    let path = "/api/v4/zones/new/custom_csrs";
    let garbage = json!([]);
    assert_eq!(api.post(path, &garbage).await.code(), (403, 1404));
    api.grant("new", None).await;
    assert_eq!(api.post(path, &garbage).await.code(), (403, 1403));
    api.grant("new", Some(1)).await;
    assert_eq!(api.post(path, &garbage).await.code(), (400, 1400));
    assert_eq!(api.post(path, &valid()).await.status, 201);
    assert_eq!(api.post(path, &garbage).await.code(), (400, 1400));
    let full = api.post(path, &valid()).await;
    assert_eq!(full.code(), (403, 1465));
    assert!(full.body["errors"][0]["message"].as_str().unwrap().contains("all 1 custom CSRs"), "{full:?}");
    assert!(api.store.revoke_scope(&zone("new"), &actor(), now()).await.unwrap());
    assert_eq!(api.post(path, &valid()).await.code(), (403, 1404));
    let id = api.get(path).await.result()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(api.send(Method::DELETE, &format!("{path}/{id}")).await.status, 200, "reads and DELETE go on");
}

#[tokio::test]
async fn concurrent_posts_never_get_one_more_than_the_quota() {
    let api = Api::start().await;
    api.grant("tight", Some(10)).await;
    let body = valid();
    let answers = futures::future::join_all((0..60).map(|_| api.post("/api/v4/zones/tight/custom_csrs", &body))).await;
    let count = |wanted: (u16, u64)| answers.iter().filter(|answer| answer.code() == wanted).count();
    assert_eq!((count((201, 0)), count((403, 1465))), (10, 50));
}

#[tokio::test]
async fn an_id_that_is_none_is_1418_and_one_that_is_not_there_1419() {
    let api = Api::start().await;
    for bad in ["1", "%ff", "a%2Fb", "%00", "0190163d86946739aea5966c26f8ad91", "01a20ddb-a60a-7ec4-a678-dddaaf48e32g", "%20", "+"] {
        for method in [Method::GET, Method::DELETE] {
            assert_eq!(api.send(method, &format!("/api/v4/zones/z/custom_csrs/{bad}")).await.code(), (400, 1418), "{bad}");
        }
    }
    assert_eq!(api.get(&format!("/api/v4/zones/z/custom_csrs/{NO_ID}")).await.code(), (404, 1419));
    let id = api.create().await;
    assert_eq!(api.get(&format!("/api/v4/zones/z/custom_csrs/{}", id.replace('-', "%2D"))).await.status, 200);
}

#[tokio::test]
async fn what_is_no_route_is_7000_and_what_is_no_method_7001_with_allow() {
    let api = Api::start().await;
    let routes = [
        "/nothing",
        "/api/v4",
        "/api/v4/zones",
        "/api/v4/zones/z",
        "/api/v4/zones/z/other",
        "/api/v5/zones/z/custom_csrs",
        "/api/v4/zones/a%2Fb/custom_csrs",
        "/api/v4/zones/%ff/custom_csrs",
        "/api/v4/zones/a~b/custom_csrs",
        "/api/v4/users/z/custom_csrs",
        &format!("/api/v4/zones/{}/custom_csrs", "x".repeat(65)),
        &format!("/api/v4/zones/z/custom_csrs/{NO_ID}/more"),
    ]
    .map(str::to_owned);
    for path in routes {
        for method in [Method::GET, Method::PUT] {
            let answer = Answer::of(api.request(method, &path).send().await.unwrap()).await;
            assert_eq!(answer.code(), (404, 7000), "{path}: a route is judged before the token, and before the method");
        }
    }
    let paths = [
        ("custom_csrs".to_owned(), "GET, HEAD, POST"),
        (format!("custom_csrs/{NO_ID}"), "GET, HEAD, PATCH, DELETE"),
        (format!("custom_csrs/{NO_ID}/rekey"), "POST"),
        ("custom_csrs/quota".to_owned(), "GET, HEAD"),
    ];
    for (path, allow) in paths {
        for scope in ["zones/z", "accounts/a"] {
            for method in [Method::PUT, Method::TRACE, Method::OPTIONS] {
                let answer = api.send(method, &format!("/api/v4/{scope}/{path}")).await;
                assert_eq!(answer.code(), (405, 7001));
                assert_eq!(answer.headers["allow"], allow);
            }
        }
    }
    let certificates = [
        ("zones/z/custom_certificates", "GET, HEAD, POST"),
        ("zones/z/custom_certificates/x", "GET, HEAD, PATCH, DELETE"),
        ("accounts/a/custom_certificates", "GET, HEAD"),
        ("accounts/a/custom_certificates/x", "GET, HEAD, DELETE"),
    ];
    for (path, allow) in certificates {
        let answer = api.send(Method::PUT, &format!("/client/v4/{path}")).await;
        assert_eq!((answer.code(), answer.headers["allow"].to_str().unwrap()), ((405, 7001), allow));
    }
    assert_eq!(api.send(Method::DELETE, "/health/live").await.headers["allow"], "GET, HEAD");
}

#[tokio::test]
async fn allow_names_exactly_the_methods_that_are_not_405() {
    let api = Api::start().await;
    let document: Value = api.client.get(format!("{}/openapi.json", api.base)).send().await.unwrap().json().await.unwrap();
    let templates = document["paths"].as_object().unwrap().keys();
    // IDs that are words of other paths are IDs all the same.
    let ids = [NO_ID, "rekey", "quota", "custom_csrs", "custom_certificates"];
    let filled = templates.flat_map(|template| {
        let scoped = template.replace("{zone_id}", "quota").replace("{account_id}", "custom_csrs");
        ids.map(|id| scoped.replace("{custom_csr_id}", id).replace("{custom_certificate_id}", id))
    });
    let mut paths: Vec<String> = filled.flat_map(|path| PREFIXES.map(|prefix| format!("{prefix}{path}"))).collect();
    paths.extend(
        ["/", "/docs", "/docs/", "/docs/codes", "/openapi.json", "/openapi.yaml", "/health/live", "/health/ready"].map(str::to_owned),
    );
    paths.extend(["/api/v4/zones/z/custom_csrs/", "/api/v4/zones/%7a/custom_csrs/%71uota"].map(str::to_owned));
    paths.sort();
    paths.dedup();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FROB"];
    for path in paths {
        let (mut works, mut told) = (Vec::new(), Vec::new());
        for method in methods {
            let request = client.request(method.parse().unwrap(), format!("{}{path}", api.base));
            let response = request.send().await.unwrap();
            match response.headers().get("allow") {
                Some(allow) => told.push(allow.to_str().unwrap().to_owned()),
                None => works.push(method),
            }
            assert_eq!(response.status() == 405, response.headers().contains_key("allow"), "{method} {path}");
        }
        assert_eq!(told, vec![works.join(", "); methods.len() - works.len()], "{path}");
    }
}

#[tokio::test]
async fn an_empty_zone_or_account_id_is_1401_before_the_token_is_judged() {
    let api = Api::start().await;
    for path in ["/api/v4/zones//custom_csrs", "/client/v4/accounts//custom_csrs", &*format!("/api/v4/zones//custom_csrs/{NO_ID}")] {
        let answer = Answer::of(api.request(Method::GET, path).send().await.unwrap()).await;
        assert_eq!(answer.code(), (400, 1401), "{path}");
    }
}

#[tokio::test]
async fn head_answers_as_get_does_without_a_body() {
    let api = Api::start().await;
    let response = api.request(Method::HEAD, "/api/v4/zones/z/custom_csrs").bearer_auth(api.all()).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.text().await.unwrap(), "");
}

#[tokio::test]
async fn a_request_id_comes_back_if_it_is_one_and_is_made_otherwise() {
    let api = Api::start().await;
    let id_of = |given: &'static str| {
        let request = api.request(Method::GET, "/health/live").header("x-request-id", given);
        async move { Answer::of(request.send().await.unwrap()).await.headers["x-request-id"].to_str().unwrap().to_owned() }
    };
    assert_eq!(id_of("my.Request_1-2").await, "my.Request_1-2");
    assert_eq!(id_of("no spaces").await.len(), 36);
    assert_eq!(id_of("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx").await.len(), 36);
}

#[tokio::test]
async fn a_rekey_is_refused_where_the_names_of_the_old_custom_csr_are_no_longer_accepted() {
    let api = Api::start().await;
    let mut new = new_custom_csr(&zone("z"), KeyType::P256v1);
    // As it was accepted while wildcards were, and before a suffix was public.
    new.request.sans = ["*.foo.com", "foo.com", "co.uk"].map(str::to_owned).to_vec();
    assert!(matches!(api.store.accept_custom_csr(&new, &actor(), now()).await.unwrap(), Acceptance::Accepted(_)));
    assert!(api.store.fail_generation(new.id, "no luck", now()).await.unwrap());
    let path = format!("/api/v4/zones/z/custom_csrs/{}/rekey", new.id);
    let refused = api.send(Method::POST, &path).await;
    assert_eq!((refused.status, refused.errors()), (400, vec![(1412, Some("/sans/0")), (1415, Some("/sans/2"))]));
    assert_eq!(api.get("/api/v4/zones/z/custom_csrs").await.body["result_info"]["total_count"], 1, "none was made");

    let id = api.create().await;
    api.test.execute(&format!("UPDATE custom_csrs SET status = 'failed', error = 'no luck' WHERE id = '{id}'")).await;
    let made = api.send(Method::POST, &format!("/api/v4/zones/z/custom_csrs/{id}/rekey")).await;
    assert_eq!((made.status, &made.result()["replaces"]), (201, &json!(id)));
}

#[tokio::test]
async fn too_many_pending_custom_csrs_are_429_with_a_retry_after_and_for_this_scope_alone() {
    let api = Api::start().await;
    let path = "/api/v4/zones/z/custom_csrs";
    let first = api.create().await;
    api.test.execute(&format!("UPDATE custom_csrs SET status = 'failed', error = 'no luck' WHERE id = '{first}'")).await;
    for _ in 0..Api::MAX_PENDING {
        api.create().await;
    }
    for refused in [api.post(path, &valid()).await, api.send(Method::POST, &format!("{path}/{first}/rekey")).await] {
        assert_eq!(refused.code(), (429, 1470));
        assert!(refused.body["messages"][0]["message"].as_str().unwrap().contains("50 pending"), "{refused:?}");
        assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    }
    assert_eq!(api.post("/api/v4/accounts/a/custom_csrs", &valid()).await.status, 201);
    let pending = api.get(&format!("{path}?status=pending&per_page=5")).await.result()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(api.send(Method::DELETE, &format!("{path}/{pending}")).await.status, 200);
    api.create().await;
}

#[tokio::test]
async fn a_custom_csr_says_the_same_time_in_its_id_and_in_created_at() {
    let api = Api::start().await;
    let answer = api.post("/api/v4/zones/z/custom_csrs", &valid()).await;
    let hexadecimal = answer.result()["id"].as_str().unwrap().replace('-', "");
    let millis = i64::from_str_radix(&hexadecimal[..12], 16).unwrap();
    let shown = shared::clock::Timestamp::from_micros(millis * 1_000).rfc3339();
    assert_eq!(answer.result()["created_at"].as_str().unwrap()[..23], shown[..23]);
}
