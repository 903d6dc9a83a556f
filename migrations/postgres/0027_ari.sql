-- no-transaction
-- Which certificates their issuers are to be asked about is looked for every few seconds.
CREATE INDEX CONCURRENTLY IF NOT EXISTS custom_certificates_ari ON custom_certificates (ari_next_at, id);
