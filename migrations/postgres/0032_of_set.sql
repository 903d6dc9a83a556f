-- no-transaction
-- The custom CSRs of a set.
CREATE INDEX CONCURRENTLY IF NOT EXISTS custom_csrs_of_set ON custom_csrs (set_id, id) WHERE set_id IS NOT NULL;
