-- The custom certificate that a POST with an Idempotency-Key made, where it was an upload; custom_csr_id is then the custom CSR that it uses.
ALTER TABLE idempotency_keys ADD COLUMN custom_certificate_id TEXT;
