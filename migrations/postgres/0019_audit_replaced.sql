-- The custom CSRs that a replace moved a certificate from and to. Other entries, and those of versions that do not know it, have none.
ALTER TABLE audit ADD COLUMN old_custom_csr_id TEXT;
ALTER TABLE audit ADD COLUMN custom_csr_id TEXT;
