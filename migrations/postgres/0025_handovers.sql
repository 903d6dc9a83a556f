-- Links for people without a token: each shows one custom CSR and takes one certificate for it. Who has the database has no link: the table
-- has the SHA-256 of the secret alone.
CREATE TABLE handovers (
    id             TEXT COLLATE "C" PRIMARY KEY,
    custom_csr_id  TEXT COLLATE "C" NOT NULL REFERENCES custom_csrs (id) ON DELETE CASCADE,
    scope          TEXT COLLATE "C" NOT NULL,   -- of the custom CSR
    replaces       TEXT COLLATE "C",            -- the certificate that the new one takes the place of; it may be deleted
    secret_sha256  BYTEA NOT NULL UNIQUE,
    note           TEXT,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    opened_at      BIGINT,   -- first seen
    used_at        BIGINT,   -- a certificate was stored
    revoked_at     BIGINT
);

CREATE INDEX handovers_of_csr ON handovers (custom_csr_id, created_at, id);
CREATE INDEX handovers_expired ON handovers (expires_at);
