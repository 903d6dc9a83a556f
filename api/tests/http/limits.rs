//! What one client cannot take from the others.

use api::http::client::TrustedProxies;
use reqwest::Method;

use crate::support::{Api, valid};

const PATH: &str = "/api/v4/zones/z/custom_csrs";

#[tokio::test]
async fn the_audit_table_names_the_client_for_whom_a_trusted_proxy_asks() {
    for (trusted, from) in [("127.0.0.0/8", "192.0.2.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let api = Api::with(|state| state.trusted_proxies = TrustedProxies::new(&[trusted.parse().unwrap()])).await;
        let request = api.request(Method::POST, PATH).bearer_auth(api.all()).json(&valid());
        let request = request.header("x-forwarded-for", "203.0.113.9, 192.0.2.7").header("x-forwarded-for", "127.0.0.9");
        assert_eq!(request.send().await.unwrap().status(), 201);
        let entries = format!("SELECT COUNT(*) FROM audit WHERE action = 'create' AND origin = '{from}'");
        assert_eq!(api.test.number(&entries).await, 1, "{trusted}");
    }
}
