-- Private keys (RSA-2048) made ahead, sealed. A worker leases one, and it leaves the table in the transaction that gives it to a custom CSR.
-- What was leased was unsealed: when the lease expires the row is deleted, never used again.
CREATE TABLE pool_keys (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created_at          BIGINT NOT NULL,
    master_key_id       TEXT COLLATE "C" NOT NULL REFERENCES master_keys (id) ON DELETE CASCADE,
    spki_sha256         BYTEA NOT NULL UNIQUE,
    sealed_private_key  BYTEA NOT NULL,
    lease_id            TEXT COLLATE "C",               -- null: free
    lease_expires_at    BIGINT,
    CHECK ((lease_id IS NULL) = (lease_expires_at IS NULL))
);

-- Workers take what waits by kind of key, in the order of the jobs.
DROP INDEX custom_csrs_pending;
CREATE INDEX custom_csrs_pending ON custom_csrs (key_type, job_id) WHERE status = 'pending';
