-- no-transaction
-- How many certificates expire soon is asked for metrics every few seconds.
CREATE INDEX CONCURRENTLY IF NOT EXISTS custom_certificates_expiring ON custom_certificates (not_after);
