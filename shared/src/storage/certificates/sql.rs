//! The statements about custom certificates.

use crate::{
    ids::Scope,
    storage::engine::{Statement, statements},
};

/// The columns that a custom certificate is read from. `not_before`, `serial_number` and `fingerprint_sha256` describe the leaf where
/// `described_at` is `modified_at`; else a version that did not know them wrote the row, and the leaf itself is asked.
macro_rules! columns {
    () => {
        $crate::storage::certificates::sql::columns!("chain_pem")
    };
    ($chain_pem:literal) => {
        concat!(
            "id, scope, custom_csr_id, ",
            $chain_pem,
            ", hosts, issuer, signature, not_after, not_before, serial_number, fingerprint_sha256, bundle_method, certificate_type, priority, \
             uploaded_at, modified_at, described_at"
        )
    };
}

/// The same, with the state of its renewal. `renewal_state` and `ari_leaf` are only about the leaf with that fingerprint.
macro_rules! read_columns {
    () => {
        $crate::storage::certificates::sql::read_columns!("chain_pem")
    };
    ($chain_pem:literal) => {
        concat!(
            $crate::storage::certificates::sql::columns!($chain_pem),
            ", renewal_state, renewal_leaf, ari_leaf, renew_after, renewal_explanation_url"
        )
    };
}

/// The same for lists, which show nothing of the PEM: up to 64 KiB a row stay unread, unless the leaf has to be asked.
macro_rules! listed_columns {
    () => {
        $crate::storage::certificates::sql::read_columns!("CASE WHEN described_at = modified_at THEN '' ELSE chain_pem END AS chain_pem")
    };
}

pub(in crate::storage) use {columns, listed_columns, read_columns};

/// Whether the zone `$2` may use a custom CSR: one of its own, or one of the account that it was granted with, while that account is granted.
/// The zone itself is `tenant`, of which something can be asked.
macro_rules! may_be_used {
    (by $tenant:literal) => {
        concat!(
            "(scope = $2 OR scope = (SELECT account.scope FROM scopes AS tenant \
             JOIN scopes AS account ON account.scope = 'accounts/' || tenant.account_id \
             WHERE tenant.scope = $2 AND account.granted = 1 AND ",
            $tenant,
            "))"
        )
    };
}

/// A statement about the certificates that a scope, `$1`, sees.
macro_rules! seen {
    (find $is_seen:literal) => {
        concat!("SELECT ", read_columns!(), " FROM custom_certificates WHERE ", $is_seen, " AND id = $2")
    };
    (delete $is_seen:literal) => {
        concat!("DELETE FROM custom_certificates WHERE ", $is_seen, " AND id = $2 RETURNING scope")
    };
    (count $is_seen:literal) => {
        concat!("SELECT COUNT(*) AS total ", seen!(@filter $is_seen))
    };
    (page $is_seen:literal) => {
        concat!("SELECT ", listed_columns!(), " ", seen!(@filter $is_seen), " ORDER BY uploaded_at DESC, id DESC LIMIT $7 OFFSET $8")
    };
    // Those with the status `$2`, where `$3` is the first notAfter that is not expired, of the custom CSR `$4`, with a pattern `$5` among
    // their hosts, and a notAfter before `$6`; null for any of them leaves it out. Of a page, `$7` after the first `$8`.
    (@filter $is_seen:literal) => {
        concat!(
            "FROM custom_certificates WHERE ",
            $is_seen,
            " AND (CAST($2 AS TEXT) IS NULL OR ($2 = 'active' AND not_after >= $3) OR ($2 = 'expired' AND not_after < $3)) \
             AND (CAST($4 AS TEXT) IS NULL OR custom_csr_id = $4) AND (CAST($5 AS TEXT) IS NULL OR lower(',' || substr(hosts, 2)) LIKE $5 ESCAPE '!') \
             AND (CAST($6 AS BIGINT) IS NULL OR not_after < $6)"
        )
    };
}

/// What a matched certificate is read from: certificates `c` of custom CSRs `k`.
macro_rules! matched {
    () => {
        "SELECT c.id, c.scope, c.modified_at, c.custom_csr_id, k.key_type, k.set_id FROM custom_csrs AS k \
         JOIN custom_certificates AS c ON c.custom_csr_id = k.id "
    };
}

statements! {
    /// What the certificate `$3` of the zone uses already needs no grant of the zone: a revocation ends what is new.
    pub(super) FIND_USABLE_CSR = concat!(
    "SELECT id, scope, status, sans, spki_sha256 FROM custom_csrs WHERE id = $1 AND ",
    may_be_used!(by "(tenant.granted = 1 OR EXISTS (SELECT id FROM custom_certificates AS present \
        WHERE present.id = $3 AND present.scope = $2 AND present.custom_csr_id = $1))")
    );
    pub(super) FIND_USABLE_CSR_BY_KEY = concat!(
    "SELECT id, scope, status, sans, spki_sha256 FROM custom_csrs WHERE spki_sha256 = $1 AND status = 'active' AND ",
    may_be_used!(by "tenant.granted = 1"),
    " ORDER BY CASE WHEN scope = $2 THEN 0 ELSE 1 END, created_at DESC LIMIT 1"
    );
    /// Keeps an active custom CSR from being deleted, and from getting another certificate, until the transaction ends. Another key is not the
    /// one that was checked.
    pub(super) LOCK_USED_CSR = "UPDATE custom_csrs SET updated_at = updated_at WHERE id = $1 AND status = 'active' AND spki_sha256 = $2";
    /// How the certificates of custom CSR `$1` stand to the chain that begins with `$4` and is to be that of certificate `$3` in zone `$2`: another
    /// one in the zone with the same leaf, how many there are, counted up to `$5`, and whether `$3` is among them.
    pub(super) STANDING_OF_CHAIN = "SELECT \
    (SELECT MIN(id) FROM custom_certificates WHERE custom_csr_id = $1 AND scope = $2 AND id <> $3 \
     AND substr(chain_pem, 1, length(CAST($4 AS TEXT))) = $4) AS stored, \
    (SELECT COUNT(*) FROM (SELECT id FROM custom_certificates WHERE custom_csr_id = $1 LIMIT $5) AS counted) AS total, \
    (SELECT COUNT(*) FROM custom_certificates WHERE id = $3 AND custom_csr_id = $1) AS present";
    pub(super) INSERT_CERTIFICATE = concat!(
    "INSERT INTO custom_certificates (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $15)"
    );
    /// Holds the certificate in place until the transaction ends, and tells what it is of.
    pub(super) LOCK_CERTIFICATE =
        "UPDATE custom_certificates SET modified_at = modified_at WHERE id = $1 AND scope = $2 RETURNING custom_csr_id";
    pub(super) REPLACE_CERTIFICATE = concat!(
    "UPDATE custom_certificates SET custom_csr_id = $3, chain_pem = $4, hosts = $5, issuer = $6, signature = $7, not_after = $8, \
     not_before = $9, serial_number = $10, fingerprint_sha256 = $11, bundle_method = COALESCE($12, bundle_method), \
     certificate_type = COALESCE($13, certificate_type), priority = COALESCE($14, priority), modified_at = $15, described_at = $15, \
     expiry_told_until = $15, ari_next_at = NULL WHERE id = $1 AND scope = $2 RETURNING ",
    read_columns!()
    );
    pub(super) EDIT_CERTIFICATE = concat!(
    "UPDATE custom_certificates SET bundle_method = COALESCE($3, bundle_method), certificate_type = COALESCE($4, certificate_type), \
     priority = COALESCE($5, priority), modified_at = $6, described_at = CASE WHEN described_at = modified_at THEN $6 ELSE described_at END \
     WHERE id = $1 AND scope = $2 RETURNING ",
    read_columns!()
    );
    /// Those of a custom CSR that are over: `$2` is the first notAfter that is not.
    pub(super) DELETE_EXPIRED_CERTIFICATES = "DELETE FROM custom_certificates WHERE custom_csr_id = $1 AND not_after < $2 RETURNING id, scope";
    pub(super) FIND_CERTIFICATE_OF_CSR = "SELECT id FROM custom_certificates WHERE custom_csr_id = $1 LIMIT 1";
    /// The next `$2` certificates of all zones after the ID `$1`.
    pub(super) ALL_CERTIFICATES = concat!("SELECT ", listed_columns!(), " FROM custom_certificates WHERE id > $1 ORDER BY id LIMIT $2");
    pub(super) MATCHED_CERTIFICATES = concat!(matched!(), "WHERE k.set_id IS NOT NULL ORDER BY c.id");
    /// Those of the zone and the set of certificate `$1`.
    pub(super) MATCHED_WITH_CERTIFICATE = concat!(
    matched!(),
    "JOIN custom_certificates AS this ON this.id = $1 AND this.scope = c.scope \
     WHERE k.set_id = (SELECT set_id FROM custom_csrs WHERE id = this.custom_csr_id) ORDER BY c.id"
    );
    pub(super) EXPORT_CERTIFICATE = concat!("SELECT ", read_columns!(), " FROM custom_certificates WHERE id = $1");
    /// The sealed private key of custom CSR `$1`, which a certificate of the zone `$2` uses, where the zone may use it.
    pub(super) SEALED_OF_CSR = concat!(
    "SELECT id, scope, spki_sha256, master_key_id, sealed_private_key FROM custom_csrs WHERE id = $1 AND status = 'active' AND ",
    may_be_used!(by "1 = 1")
    );
    pub(super) FIND_SEEN_BY_ZONE = seen!(find "scope = $1");
    pub(super) FIND_SEEN_BY_ACCOUNT = seen!(find "custom_csr_id IN (SELECT id FROM custom_csrs WHERE scope = $1)");
    pub(super) DELETE_SEEN_BY_ZONE = seen!(delete "scope = $1");
    pub(super) DELETE_SEEN_BY_ACCOUNT = seen!(delete "custom_csr_id IN (SELECT id FROM custom_csrs WHERE scope = $1)");
    pub(super) COUNT_SEEN_BY_ZONE = seen!(count "scope = $1");
    pub(super) COUNT_SEEN_BY_ACCOUNT = seen!(count "custom_csr_id IN (SELECT id FROM custom_csrs WHERE scope = $1)");
    pub(super) PAGE_SEEN_BY_ZONE = seen!(page "scope = $1");
    pub(super) PAGE_SEEN_BY_ACCOUNT = seen!(page "custom_csr_id IN (SELECT id FROM custom_csrs WHERE scope = $1)");
}

/// The statements about the certificates that one kind of scope sees.
pub(super) struct Seen {
    pub find: Statement,
    pub delete: Statement,
    pub count: Statement,
    pub page: Statement,
}

pub(super) const fn seen_by(scope: &Scope) -> Seen {
    match scope {
        Scope::Zone(_) => Seen { find: FIND_SEEN_BY_ZONE, delete: DELETE_SEEN_BY_ZONE, count: COUNT_SEEN_BY_ZONE, page: PAGE_SEEN_BY_ZONE },
        Scope::Account(_) => {
            Seen { find: FIND_SEEN_BY_ACCOUNT, delete: DELETE_SEEN_BY_ACCOUNT, count: COUNT_SEEN_BY_ACCOUNT, page: PAGE_SEEN_BY_ACCOUNT }
        }
    }
}
