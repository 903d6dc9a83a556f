-- Until when a custom CSR that was deleted can be restored. Always null here: those that have it lie in the table below, where nothing that
-- looks for custom CSRs meets them. A version before this one does not know that table, and takes them for deleted.
ALTER TABLE custom_csrs ADD COLUMN destroy_after INTEGER;

-- How many of the used ones are hidden.
ALTER TABLE scopes ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0 CHECK (hidden >= 0);

-- The columns of custom_csrs, in the same order: rows move from one to the other as they are. What changes there changes here too.
CREATE TABLE hidden_custom_csrs (
    id                  TEXT NOT NULL PRIMARY KEY,
    scope               TEXT NOT NULL REFERENCES scopes (scope),
    account_id          TEXT,
    status              TEXT NOT NULL,
    error               TEXT,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    country             TEXT NOT NULL,
    state               TEXT NOT NULL,
    locality            TEXT NOT NULL,
    organization        TEXT NOT NULL,
    organizational_unit TEXT,
    common_name         TEXT NOT NULL,
    name                TEXT,
    description         TEXT,
    sans                TEXT NOT NULL,
    key_type            TEXT NOT NULL,
    search_text         TEXT NOT NULL,
    csr_pem             TEXT,
    job_id              TEXT NOT NULL,
    attempts            INTEGER NOT NULL,
    starts              INTEGER NOT NULL,
    master_key_id       TEXT REFERENCES master_keys (id),
    spki_sha256         BLOB UNIQUE,
    sealed_private_key  BLOB,
    replaces            TEXT,
    stale_told_at       INTEGER,
    incident_id         TEXT,
    destroy_after       INTEGER NOT NULL
) STRICT;

CREATE INDEX hidden_custom_csrs_due ON hidden_custom_csrs (destroy_after, id);
CREATE INDEX hidden_custom_csrs_of_scope ON hidden_custom_csrs (scope, id);
CREATE INDEX hidden_custom_csrs_sealed ON hidden_custom_csrs (master_key_id, id) WHERE master_key_id IS NOT NULL;
