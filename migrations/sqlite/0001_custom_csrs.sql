-- Zones and accounts that were granted custom CSRs. A revoked scope keeps its row: its custom CSRs still count.
CREATE TABLE scopes (
    scope       TEXT NOT NULL PRIMARY KEY,              -- zones/ID or accounts/ID
    kind        TEXT NOT NULL CHECK (kind IN ('zone', 'account')),
    granted     INTEGER NOT NULL CHECK (granted IN (0, 1)),
    account_id  TEXT,                                   -- the account that a zone belongs to
    quota       INTEGER CHECK (quota >= 0),             -- null: access without a quota
    used        INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0),
    updated_at  INTEGER NOT NULL                        -- microseconds since the Unix epoch, as all times here
) STRICT;

-- Which master keys sealed what is stored here. The current one is the one that seals.
CREATE TABLE master_keys (
    id          TEXT NOT NULL PRIMARY KEY,
    current     INTEGER NOT NULL CHECK (current IN (0, 1)),
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE custom_csrs (
    id                  TEXT NOT NULL PRIMARY KEY,
    scope               TEXT NOT NULL REFERENCES scopes (scope),
    account_id          TEXT,
    status              TEXT NOT NULL CHECK (status IN ('pending', 'active', 'failed')),
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
    sans                TEXT NOT NULL,                  -- a JSON array of strings, as given
    key_type            TEXT NOT NULL CHECK (key_type IN ('rsa2048', 'p256v1')),
    search_text         TEXT NOT NULL,                  -- name, common name and SANs, ASCII lower case
    csr_pem             TEXT,
    job_id              TEXT NOT NULL,                  -- the job that is to wake a worker for it
    attempts            INTEGER NOT NULL DEFAULT 0,     -- generations that ended in an error
    starts              INTEGER NOT NULL DEFAULT 0,     -- generations started since the last result
    master_key_id       TEXT REFERENCES master_keys (id),
    spki_sha256         BLOB UNIQUE,                    -- one private key, one custom CSR
    sealed_private_key  BLOB,
    CHECK ((status = 'active') = (csr_pem IS NOT NULL)),
    CHECK ((status = 'active') = (spki_sha256 IS NOT NULL)),
    CHECK ((status = 'active') = (master_key_id IS NOT NULL)),
    CHECK ((status = 'active') = (sealed_private_key IS NOT NULL)),
    CHECK ((status = 'failed') = (error IS NOT NULL))
) STRICT;

CREATE INDEX custom_csrs_newest ON custom_csrs (scope, created_at, id);
CREATE INDEX custom_csrs_pending ON custom_csrs (id) WHERE status = 'pending';
CREATE INDEX custom_csrs_sealed ON custom_csrs (master_key_id, id) WHERE master_key_id IS NOT NULL;
