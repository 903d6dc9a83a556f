-- no-transaction
-- How many custom CSRs of one zone or account are pending is counted before one more is accepted.
CREATE INDEX CONCURRENTLY IF NOT EXISTS custom_csrs_pending_of_scope ON custom_csrs (scope) WHERE status = 'pending';
