-- no-transaction
-- A certificate finds its custom CSR by its public key.
CREATE INDEX CONCURRENTLY IF NOT EXISTS custom_csrs_key ON custom_csrs (spki_sha256) WHERE spki_sha256 IS NOT NULL;
