//! `csrctl quota`.

use reqwest::Method;
use serde_json::json;

use crate::{
    client::{Client, Request},
    failure::Failure,
    output::{Form, print_json, print_table},
};

/// Prints how many custom CSRs there may be, and are.
pub async fn quota(client: &Client, form: Form) -> Result<(), Failure> {
    let quota = client.send(&Request::new(Method::GET, ["custom_csrs", "quota"])).await?.result;
    if form == Form::Json {
        return print_json(&quota);
    }
    let [allocated, used] = ["allocated", "used"].map(|name| quota[name].as_u64().unwrap_or_default());
    let row = json!({"allocated": allocated, "used": used, "free": allocated.saturating_sub(used)});
    print_table(&[row], &["allocated", "used", "free"])
}
