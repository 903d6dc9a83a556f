-- Until when a custom CSR that was deleted can be restored. Always null here: those that have it lie in the table below, where nothing that
-- looks for custom CSRs meets them. A version before this one does not know that table, and takes them for deleted.
ALTER TABLE custom_csrs ADD COLUMN destroy_after BIGINT;

-- How many of the used ones are hidden.
ALTER TABLE scopes ADD COLUMN hidden BIGINT NOT NULL DEFAULT 0 CHECK (hidden >= 0);

-- The columns of custom_csrs, in the same order: rows move from one to the other as they are. What changes there changes here too.
CREATE TABLE hidden_custom_csrs (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    scope               TEXT COLLATE "C" NOT NULL REFERENCES scopes (scope),
    account_id          TEXT COLLATE "C",
    status              TEXT COLLATE "C" NOT NULL,
    error               TEXT,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    country             TEXT NOT NULL,
    state               TEXT NOT NULL,
    locality            TEXT NOT NULL,
    organization        TEXT NOT NULL,
    organizational_unit TEXT,
    common_name         TEXT NOT NULL,
    name                TEXT COLLATE "C",
    description         TEXT,
    sans                TEXT NOT NULL,
    key_type            TEXT COLLATE "C" NOT NULL,
    search_text         TEXT COLLATE "C" NOT NULL,
    csr_pem             TEXT,
    job_id              TEXT COLLATE "C" NOT NULL,
    attempts            BIGINT NOT NULL,
    starts              BIGINT NOT NULL,
    master_key_id       TEXT COLLATE "C" REFERENCES master_keys (id),
    spki_sha256         BYTEA UNIQUE,
    sealed_private_key  BYTEA,
    replaces            TEXT COLLATE "C",
    stale_told_at       BIGINT,
    incident_id         TEXT COLLATE "C",
    destroy_after       BIGINT NOT NULL
);

CREATE INDEX hidden_custom_csrs_due ON hidden_custom_csrs (destroy_after, id);
CREATE INDEX hidden_custom_csrs_of_scope ON hidden_custom_csrs (scope, id);
CREATE INDEX hidden_custom_csrs_sealed ON hidden_custom_csrs (master_key_id, id) WHERE master_key_id IS NOT NULL;
