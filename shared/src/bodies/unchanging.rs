//! Members of a custom CSR that no request changes: whoever sends one back as it was read has misspelled nothing.

/// Those of the request that it was made of, but for `name` and `description`, and those of responses alone.
const UNCHANGING: [&str; 20] = [
    "common_name",
    "country",
    "key_type",
    "key_types",
    "locality",
    "organization",
    "organizational_unit",
    "sans",
    "state",
    // Of responses.
    "account_tag",
    "created_at",
    "csr",
    "custom_certificate_ids",
    "error",
    "id",
    "replaces",
    "set_id",
    "status",
    "updated_at",
    "zone_id",
];

/// Whether no request changes this member.
pub(super) fn never_changes(name: &str) -> bool {
    UNCHANGING.contains(&name)
}
