//! Every statement, each a named constant in the SQL that both databases understand, but for those of certificates, which are beside their
//! code. A test prepares all of them.

/// The columns that a [`crate::model::CustomCsr`] is read from.
macro_rules! csr_columns {
    () => {
        "id, scope, account_id, status, error, created_at, updated_at, country, state, locality, organization, \
         organizational_unit, common_name, name, description, sans, key_type, csr_pem, replaces"
    };
}

/// The same, with the IDs of the certificates that use the row, the oldest first.
macro_rules! csr_columns_with_certificates {
    () => {
        concat!(
            $crate::storage::statements::csr_columns!(),
            ", (SELECT string_agg(c.id, ',' ORDER BY c.uploaded_at, c.id) FROM custom_certificates c \
             WHERE c.custom_csr_id = custom_csrs.id) AS certificate_ids"
        )
    };
}

/// The rows of one scope that a list's filters leave: `$1` scope, `$2` status, `$3` key type, `$4` search pattern.
macro_rules! csr_filter {
    () => {
        "FROM custom_csrs WHERE scope = $1 AND (CAST($2 AS TEXT) IS NULL OR status = $2) AND (CAST($3 AS TEXT) IS NULL OR key_type = $3) \
         AND (CAST($4 AS TEXT) IS NULL OR search_text LIKE $4 ESCAPE '!')"
    };
}

/// One page in one order. The inner query finds the IDs by index alone, the outer one reads the rows.
macro_rules! csr_page {
    ($order:literal) => {
        concat!(
            "SELECT ",
            csr_columns_with_certificates!(),
            " FROM custom_csrs WHERE id IN (SELECT id ",
            csr_filter!(),
            " ORDER BY ",
            $order,
            " LIMIT $5 OFFSET $6) ORDER BY ",
            $order
        )
    };
}

/// Starts the rows of these jobs, which wait for a key of type `$3`, and gives them job `$1`; `$2` is a JSON array with the IDs of the jobs.
macro_rules! start_rows_of_jobs {
    ($is_one_of_the_ids:literal) => {
        concat!(
            "UPDATE custom_csrs SET starts = starts + 1, job_id = $1 \
             WHERE status = 'pending' AND key_type = $3 AND job_id ",
            $is_one_of_the_ids,
            " RETURNING ",
            $crate::storage::statements::csr_columns!(),
            ", CAST(NULL AS TEXT) AS certificate_ids, attempts, starts, job_id"
        )
    };
}

/// The rows that a query's pairs of ID and scope name.
macro_rules! find_custom_csrs {
    ($pairs:literal) => {
        concat!(
            "SELECT ",
            $crate::storage::statements::csr_columns_with_certificates!(),
            " FROM custom_csrs WHERE (id, scope) IN (",
            $pairs,
            ")"
        )
    };
}

pub(super) use {csr_columns, csr_columns_with_certificates, find_custom_csrs, start_rows_of_jobs};

pub(super) const GRANT_SCOPE: &str = "INSERT INTO scopes (scope, kind, granted, account_id, quota, updated_at) \
    VALUES ($1, $2, 1, $3, $4, $5) ON CONFLICT (scope) DO UPDATE SET granted = 1, account_id = excluded.account_id, \
    quota = excluded.quota, updated_at = excluded.updated_at";
pub(super) const REVOKE_SCOPE: &str = "UPDATE scopes SET granted = 0, updated_at = $2 WHERE scope = $1 AND granted = 1";
pub(super) const LIST_SCOPES: &str =
    "SELECT scope, granted, account_id, quota, used FROM scopes WHERE kind = $1 AND granted = 1 ORDER BY scope";
pub(super) const FIND_SCOPE: &str = "SELECT scope, granted, account_id, quota, used FROM scopes WHERE scope = $1";

/// Takes one of the scope's quota: the row's lock makes concurrent requests take turns, the condition never lets one too many by.
pub(super) const TAKE_QUOTA: &str =
    "UPDATE scopes SET used = used + 1 WHERE scope = $1 AND granted = 1 AND used < quota RETURNING account_id, used";
/// The pending custom CSRs of scope `$1`, counted up to `$2`.
pub(super) const COUNT_PENDING: &str =
    "SELECT COUNT(*) AS total FROM (SELECT id FROM custom_csrs WHERE scope = $1 AND status = 'pending' LIMIT $2) AS pending";
pub(super) const GIVE_BACK_QUOTA: &str = "UPDATE scopes SET used = used - 1 WHERE scope = $1";

pub(super) const INSERT_CUSTOM_CSR: &str = "INSERT INTO custom_csrs (id, scope, account_id, status, created_at, updated_at, country, \
    state, locality, organization, organizational_unit, common_name, name, description, sans, key_type, search_text, job_id, replaces) \
    VALUES ($1, $2, $3, 'pending', $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
/// Claims a key, or takes over a record that is too old to count.
pub(super) const CLAIM_IDEMPOTENCY_KEY: &str = "INSERT INTO idempotency_keys (scope, key_sha256, body_sha256, custom_csr_id, created_at) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (scope, key_sha256) DO UPDATE SET body_sha256 = excluded.body_sha256, \
    custom_csr_id = excluded.custom_csr_id, created_at = excluded.created_at WHERE idempotency_keys.created_at < $6";
pub(super) const FIND_IDEMPOTENCY_KEY: &str =
    "SELECT body_sha256, custom_csr_id AS id FROM idempotency_keys WHERE scope = $1 AND key_sha256 = $2";
/// The remembered keys of scope `$1`, counted up to `$2`.
pub(super) const COUNT_IDEMPOTENCY_KEYS: &str =
    "SELECT COUNT(*) AS total FROM (SELECT key_sha256 FROM idempotency_keys WHERE scope = $1 LIMIT $2) AS remembered";
pub(super) const PURGE_IDEMPOTENCY_KEYS: &str = "DELETE FROM idempotency_keys WHERE (scope, key_sha256) IN \
    (SELECT scope, key_sha256 FROM idempotency_keys WHERE created_at < $1 LIMIT $2)";

pub(super) const FIND_CUSTOM_CSR: &str =
    concat!("SELECT ", csr_columns_with_certificates!(), " FROM custom_csrs WHERE id = $1 AND scope = $2");
/// Keeps others from deleting the row, and from using it for a certificate, until the transaction ends.
pub(super) const LOCK_CUSTOM_CSR: &str = "UPDATE custom_csrs SET updated_at = updated_at WHERE id = $1 AND scope = $2 RETURNING job_id";
pub(super) const DELETE_CUSTOM_CSR: &str = "DELETE FROM custom_csrs WHERE id = $1";
/// Name and description, each changed where the flag before it is 1. The search text has the name in it.
pub(super) const EDIT_CUSTOM_CSR: &str = "UPDATE custom_csrs SET name = CASE WHEN CAST($3 AS BIGINT) = 1 THEN $4 ELSE name END, \
    search_text = CASE WHEN CAST($3 AS BIGINT) = 1 THEN $5 ELSE search_text END, \
    description = CASE WHEN CAST($6 AS BIGINT) = 1 THEN $7 ELSE description END, updated_at = $8 WHERE id = $1 AND scope = $2";

/// The transactions that accept and delete keep this number.
pub(super) const COUNT_OF_SCOPE: &str = "SELECT used AS total FROM scopes WHERE scope = $1";
pub(super) const COUNT_CUSTOM_CSRS: &str = concat!("SELECT COUNT(*) AS total ", csr_filter!());
pub(super) const PAGE_BY_CREATED_AT_ASC: &str = csr_page!("created_at, id");
pub(super) const PAGE_BY_CREATED_AT_DESC: &str = csr_page!("created_at DESC, id DESC");
pub(super) const PAGE_BY_NAME_ASC: &str = csr_page!("name IS NULL, name, id");
pub(super) const PAGE_BY_NAME_DESC: &str = csr_page!("name IS NULL, name DESC, id DESC");
pub(super) const PAGE_BY_ACCOUNT_ASC: &str = csr_page!("account_id IS NULL, account_id, id");
pub(super) const PAGE_BY_ACCOUNT_DESC: &str = csr_page!("account_id IS NULL, account_id DESC, id DESC");

pub(super) const START_GENERATION: &str = concat!(
    "UPDATE custom_csrs SET starts = starts + 1 WHERE id = $1 AND status = 'pending' RETURNING ",
    csr_columns!(),
    ", CAST(NULL AS TEXT) AS certificate_ids, attempts, starts, job_id"
);
/// The other rows, of key type `$3`, that job `$1` stood for.
pub(super) const ROWS_OF_JOB: &str =
    "SELECT id, job_id FROM custom_csrs WHERE status = 'pending' AND key_type = $3 AND job_id = $1 AND id <> $2";
pub(super) const COMPLETE_GENERATION: &str = "UPDATE custom_csrs SET status = 'active', csr_pem = $2, spki_sha256 = $3, \
    master_key_id = $4, sealed_private_key = $5, updated_at = $6 WHERE id = $1 AND status = 'pending'";
/// Only the first of two workers that saw the same number of attempts counts one more.
pub(super) const RETRY_GENERATION: &str = "UPDATE custom_csrs SET attempts = attempts + 1, starts = 0, job_id = $3, updated_at = $4 \
    WHERE id = $1 AND status = 'pending' AND attempts = $2";
pub(super) const FAIL_GENERATION: &str =
    "UPDATE custom_csrs SET status = 'failed', error = $2, updated_at = $3 WHERE id = $1 AND status = 'pending'";
/// A start that ended without a result through no fault of the row's does not count.
pub(super) const FORGET_START: &str = "UPDATE custom_csrs SET starts = starts - 1 WHERE id = $1 AND status = 'pending' AND starts > 0";
/// Likewise, and job `$2` is to wake a worker for it again.
pub(super) const DEFER_GENERATION: &str = "UPDATE custom_csrs SET starts = CASE WHEN starts > 0 THEN starts - 1 ELSE 0 END, job_id = $2 \
    WHERE id = $1 AND status = 'pending'";
pub(super) const REPLACE_JOB: &str = "UPDATE custom_csrs SET job_id = $2 WHERE id = $1 AND status = 'pending' AND job_id = $3";

/// A row where the pool has fewer than `$2` keys and `$1` is the current master key.
pub(super) const ROOM_IN_POOL: &str = "SELECT id FROM master_keys WHERE id = $1 AND current = 1 AND (SELECT COUNT(*) FROM pool_keys) < $2";
pub(super) const INSERT_POOL_KEY: &str =
    "INSERT INTO pool_keys (id, created_at, master_key_id, spki_sha256, sealed_private_key) VALUES ($1, $2, $3, $4, $5)";
pub(super) const COUNT_POOL_KEYS: &str = "SELECT COUNT(*) AS total FROM pool_keys";
pub(super) const DELETE_LEASED_POOL_KEY: &str = "DELETE FROM pool_keys WHERE id = $1 AND lease_id = $2";
pub(super) const PURGE_POOL_KEYS: &str =
    "DELETE FROM pool_keys WHERE id IN (SELECT id FROM pool_keys WHERE lease_expires_at < $1 LIMIT $2)";

pub(super) const LIST_MASTER_KEYS: &str = "SELECT id, current, CAST(CASE WHEN EXISTS (SELECT 1 FROM custom_csrs \
    WHERE master_key_id = master_keys.id) THEN 1 ELSE 0 END AS BIGINT) AS in_use FROM master_keys ORDER BY created_at, id";
pub(super) const REGISTER_MASTER_KEY: &str = "INSERT INTO master_keys (id, current, created_at) VALUES ($1, 1, $2)";
pub(super) const LIST_SEALED: &str = "SELECT id, scope, spki_sha256, master_key_id, sealed_private_key FROM custom_csrs \
    WHERE id > $1 AND sealed_private_key IS NOT NULL ORDER BY id LIMIT $2";

pub(super) const INSERT_AUDIT: &str =
    "INSERT INTO audit (at, who, origin, action, resource, scope, request_id, via) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
/// One subquery each: SQLite finds both at the ends of the table.
pub(super) const AUDIT_NUMBERS: &str = "SELECT (SELECT MIN(number) FROM audit) AS first, (SELECT MAX(number) FROM audit) AS last";
/// The next `$11` entries with numbers over `$1`, up to `$2`, from `$3` until before `$4`, of the scopes `$5` to `$8`, by `$9`, on the action
/// `$10`; what is null asks for nothing.
pub(super) const READ_AUDIT: &str = "SELECT number, at, who, origin, via, action, resource, scope, request_id FROM audit \
    WHERE number > $1 AND number <= $2 AND at >= $3 AND at < $4 \
    AND (COALESCE(CAST($5 AS TEXT), CAST($7 AS TEXT)) IS NULL OR scope IN ($5, $6, $7, $8)) \
    AND (CAST($9 AS TEXT) IS NULL OR who = $9) AND (CAST($10 AS TEXT) IS NULL OR action = $10) ORDER BY number LIMIT $11";
/// Lets this transaction delete the entries with the numbers `$1` to `$2`, and no others.
pub(super) const BEGIN_ARCHIVING: &str = "INSERT INTO archiving (id, first, last) VALUES (1, $1, $2)";
pub(super) const DELETE_ARCHIVED: &str = "DELETE FROM audit WHERE number BETWEEN $1 AND $2";
/// Before the commit, which fails without it.
pub(super) const END_ARCHIVING: &str = "DELETE FROM archiving";

/// All of the above, for the test that prepares them.
#[cfg(test)]
pub(super) const ALL: &[&str] = &[
    GRANT_SCOPE,
    REVOKE_SCOPE,
    LIST_SCOPES,
    FIND_SCOPE,
    TAKE_QUOTA,
    GIVE_BACK_QUOTA,
    COUNT_PENDING,
    INSERT_CUSTOM_CSR,
    CLAIM_IDEMPOTENCY_KEY,
    FIND_IDEMPOTENCY_KEY,
    COUNT_IDEMPOTENCY_KEYS,
    PURGE_IDEMPOTENCY_KEYS,
    FIND_CUSTOM_CSR,
    LOCK_CUSTOM_CSR,
    DELETE_CUSTOM_CSR,
    EDIT_CUSTOM_CSR,
    COUNT_OF_SCOPE,
    COUNT_CUSTOM_CSRS,
    PAGE_BY_CREATED_AT_ASC,
    PAGE_BY_CREATED_AT_DESC,
    PAGE_BY_NAME_ASC,
    PAGE_BY_NAME_DESC,
    PAGE_BY_ACCOUNT_ASC,
    PAGE_BY_ACCOUNT_DESC,
    START_GENERATION,
    ROWS_OF_JOB,
    COMPLETE_GENERATION,
    RETRY_GENERATION,
    FAIL_GENERATION,
    FORGET_START,
    DEFER_GENERATION,
    REPLACE_JOB,
    ROOM_IN_POOL,
    INSERT_POOL_KEY,
    COUNT_POOL_KEYS,
    DELETE_LEASED_POOL_KEY,
    PURGE_POOL_KEYS,
    LIST_MASTER_KEYS,
    REGISTER_MASTER_KEY,
    LIST_SEALED,
    INSERT_AUDIT,
    AUDIT_NUMBERS,
    READ_AUDIT,
    BEGIN_ARCHIVING,
    DELETE_ARCHIVED,
    END_ARCHIVING,
];
