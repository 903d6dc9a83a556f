//! What the operations are about.

use serde_json::{Value, json};

/// The tags, with what they stand for.
pub fn tags() -> Value {
    let tag = |name: &str, title: &str, description: &str| json!({ "name": name, "x-displayName": title, "description": description });
    json!([
        tag("zone-custom-csrs", "Custom CSRs of a zone", "Keys and certificate signing requests that are made for a zone."),
        tag("account-custom-csrs", "Custom CSRs of an account", "The same for an account: its zones may use them."),
        tag("zone-custom-certificates", "Custom certificates of a zone", "The certificates that a CA issued for them."),
        tag(
            "account-custom-certificates",
            "Custom certificates for an account's custom CSRs",
            "Those in whatever zone that use the account's custom CSRs, to look at and to delete."
        ),
        tag("zone-webhooks", "Webhooks of a zone", "Who is told of events of the zone."),
        tag("account-webhooks", "Webhooks of an account", "Who is told of events of the account and of its zones."),
        tag("zone-renewal-policies", "Renewal policy of a zone", "How the zone's certificates are renewed in time."),
        tag("zone-handovers", "Hand-over links", "Links for people without a token: each shows one CSR and takes one certificate for it."),
    ])
}
