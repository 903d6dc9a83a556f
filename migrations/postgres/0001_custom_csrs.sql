-- The same tables and columns as on SQLite. Text that is sorted or compared is so by code point, alike on both.
-- apalis' trigger notifies within the accepting transaction, which makes all commits wait for one lock: csrd notifies after commits.
DROP TRIGGER IF EXISTS notify_workers ON apalis.jobs;

-- Zones and accounts that were granted custom CSRs. A revoked scope keeps its row: its custom CSRs still count.
CREATE TABLE scopes (
    scope       TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- zones/ID or accounts/ID
    kind        TEXT NOT NULL CHECK (kind IN ('zone', 'account')),
    granted     BIGINT NOT NULL CHECK (granted IN (0, 1)),
    account_id  TEXT COLLATE "C",                       -- the account that a zone belongs to
    quota       BIGINT CHECK (quota >= 0),              -- null: access without a quota
    used        BIGINT NOT NULL DEFAULT 0 CHECK (used >= 0),
    updated_at  BIGINT NOT NULL                         -- microseconds since the Unix epoch, as all times here
);

-- Which master keys sealed what is stored here. The current one is the one that seals.
CREATE TABLE master_keys (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    current     BIGINT NOT NULL CHECK (current IN (0, 1)),
    created_at  BIGINT NOT NULL
);

CREATE TABLE custom_csrs (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    scope               TEXT COLLATE "C" NOT NULL REFERENCES scopes (scope),
    account_id          TEXT COLLATE "C",
    status              TEXT COLLATE "C" NOT NULL CHECK (status IN ('pending', 'active', 'failed')),
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
    sans                TEXT NOT NULL,                  -- a JSON array of strings, as given
    key_type            TEXT COLLATE "C" NOT NULL CHECK (key_type IN ('rsa2048', 'p256v1')),
    search_text         TEXT COLLATE "C" NOT NULL,      -- name, common name and SANs, ASCII lower case
    csr_pem             TEXT,
    job_id              TEXT COLLATE "C" NOT NULL,      -- the job that is to wake a worker for it
    attempts            BIGINT NOT NULL DEFAULT 0,      -- generations that ended in an error
    starts              BIGINT NOT NULL DEFAULT 0,      -- generations started since the last result
    master_key_id       TEXT COLLATE "C" REFERENCES master_keys (id),
    spki_sha256         BYTEA UNIQUE,                   -- one private key, one custom CSR
    sealed_private_key  BYTEA,
    CHECK ((status = 'active') = (csr_pem IS NOT NULL)),
    CHECK ((status = 'active') = (spki_sha256 IS NOT NULL)),
    CHECK ((status = 'active') = (master_key_id IS NOT NULL)),
    CHECK ((status = 'active') = (sealed_private_key IS NOT NULL)),
    CHECK ((status = 'failed') = (error IS NOT NULL))
);

CREATE INDEX custom_csrs_newest ON custom_csrs (scope, created_at, id);
CREATE INDEX custom_csrs_pending ON custom_csrs (id) WHERE status = 'pending';
CREATE INDEX custom_csrs_sealed ON custom_csrs (master_key_id, id) WHERE master_key_id IS NOT NULL;
