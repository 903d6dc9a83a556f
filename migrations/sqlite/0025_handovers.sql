-- Links for people without a token: each shows one custom CSR and takes one certificate for it. Who has the database has no link: the table
-- has the SHA-256 of the secret alone.
CREATE TABLE handovers (
    id             TEXT NOT NULL PRIMARY KEY,
    custom_csr_id  TEXT NOT NULL REFERENCES custom_csrs (id) ON DELETE CASCADE,
    scope          TEXT NOT NULL,   -- of the custom CSR
    replaces       TEXT,            -- the certificate that the new one takes the place of; it may be deleted
    secret_sha256  BLOB NOT NULL UNIQUE,
    note           TEXT,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    opened_at      INTEGER,   -- first seen
    used_at        INTEGER,   -- a certificate was stored
    revoked_at     INTEGER
) STRICT;

CREATE INDEX handovers_of_csr ON handovers (custom_csr_id, created_at, id);
CREATE INDEX handovers_expired ON handovers (expires_at);
