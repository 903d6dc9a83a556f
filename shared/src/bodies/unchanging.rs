//! Members of a resource that no request changes: whoever sends it back as it was read has misspelled nothing.

use super::{json::Json, unknown};
use crate::{codes::WarningCode, issue::Warning};

/// Those of a custom CSR: what it was made of, but for `name` and `description`, and what responses alone have.
pub(super) const OF_CUSTOM_CSRS: &[&str] = &[
    "account_tag",
    "common_name",
    "country",
    "created_at",
    "csr",
    "custom_certificate_ids",
    "error",
    "id",
    "key_type",
    "key_types",
    "locality",
    "organization",
    "organizational_unit",
    "replaces",
    "sans",
    "set_id",
    "state",
    "status",
    "updated_at",
    "zone_id",
];

/// Those of a custom certificate.
pub(super) const OF_CUSTOM_CERTIFICATES: &[&str] = &[
    "chain",
    "expires_on",
    "fingerprint_sha256",
    "hosts",
    "id",
    "issuer",
    "modified_on",
    "not_before",
    "renew_after",
    "renewal",
    "renewal_explanation_url",
    "serial_number",
    "signature",
    "status",
    "uploaded_on",
    "zone_id",
];

/// Those of a webhook.
pub(super) const OF_WEBHOOKS: &[&str] = &["account_id", "created_at", "disabled_reason", "id", "secret", "updated_at", "zone_id"];

/// Warns that a member was ignored: one of these, or one that does not exist. There is no warning if it is `null`, which is the same as absent.
pub(super) fn warn(unchanging: &[&str], name: &str, value: &Json, warnings: &mut Vec<Warning>) {
    if *value == Json::Null {
        return;
    }
    if unchanging.contains(&name) {
        warnings.push(Warning::at(WarningCode::NoEffect, format!("/{name}")));
    } else {
        unknown::warn(name, value, warnings);
    }
}
