//! `ETag` and `If-None-Match` on GET of one.

use reqwest::{Method, Response};
use shared::{ids::CustomCsrId, testing::now};

use crate::support::{Api, NO_ID};

const PATH: &str = "/api/v4/zones/z/custom_csrs";

async fn get(api: &Api, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = api.request(Method::GET, path).bearer_auth(api.all());
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

fn tag(response: &Response) -> String {
    response.headers()["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn who_has_an_answer_is_told_so_without_a_body_until_it_changes() {
    let api = Api::start().await;
    let id = api.create().await;
    let path = format!("{PATH}/{id}");
    let first = get(&api, &path, &[]).await;
    let known = tag(&first);
    assert!(first.status() == 200 && known.starts_with('"') && known.ends_with('"'), "{known}");
    assert_eq!(tag(&get(&api, &path, &[("if-none-match", "\"other\"")]).await), known, "the same answer has the same tag");
    for list in [known.clone(), format!("W/{known}"), format!("\"other\", W/{known}"), "*".to_owned()] {
        let answer = get(&api, &path, &[("if-none-match", list.as_str())]).await;
        assert_eq!((answer.status().as_u16(), tag(&answer)), (304, known.clone()), "{list}");
        assert!(answer.headers().contains_key("x-request-id") && !answer.headers().contains_key("content-type"));
        assert_eq!(answer.bytes().await.unwrap(), "");
    }
    for other in ["\"other\"", &known[1..known.len() - 1], "", "\"*\""] {
        assert_eq!(get(&api, &path, &[("if-none-match", other)]).await.status(), 200, "{other}");
    }
    assert!(api.store.fail_generation(CustomCsrId::parse(&id).unwrap(), "no luck", now()).await.unwrap());
    let changed = get(&api, &path, &[("if-none-match", known.as_str())]).await;
    assert!(changed.status() == 200 && tag(&changed) != known);
}

#[tokio::test]
async fn an_error_is_told_whatever_the_client_has() {
    let api = Api::start().await;
    let id = api.create().await;
    let any = ("if-none-match", "*");
    let none = get(&api, &format!("{PATH}/{NO_ID}"), &[any]).await;
    assert!(none.status() == 404 && !none.headers().contains_key("etag"));
    assert_eq!(get(&api, &format!("{PATH}/x"), &[any]).await.status(), 400);
    let file = get(&api, &format!("{PATH}/{id}"), &[any, ("accept", "application/x-pem-file")]).await;
    assert_eq!(file.status(), 406);
    let refused = api.request(Method::GET, &format!("{PATH}/{id}")).header(any.0, any.1).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(get(&api, PATH, &[any]).await.status(), 200, "a list has no tag");
}

#[tokio::test]
async fn who_waits_with_a_tag_gets_304_if_nothing_changed_and_each_form_has_a_tag_of_its_own() {
    let mut api = Api::with_workers(true).await;
    let path = format!("{PATH}/{}", api.create().await);
    let active = get(&api, &path, &[("prefer", "wait=30")]).await;
    let known = tag(&active);
    assert!(active.text().await.unwrap().contains("\"active\""));
    let again = get(&api, &path, &[("prefer", "wait=30"), ("if-none-match", known.as_str())]).await;
    assert_eq!((again.status().as_u16(), again.headers()["preference-applied"].to_str().unwrap()), (304, "wait=30"));
    let mut tags = vec![known];
    for form in ["application/x-pem-file", "application/pkcs10"] {
        let file = get(&api, &path, &[("accept", form), ("if-none-match", tags.join(",").as_str())]).await;
        assert_eq!(file.status(), 200, "{form}");
        let known = tag(&file);
        assert_eq!(get(&api, &path, &[("accept", form), ("if-none-match", known.as_str())]).await.status(), 304, "{form}");
        tags.push(known);
    }
    api.drain_workers().await;
}
