-- When a custom CSR lost a certificate last: it is not stale before it has had none for long. A table of its own, whose rows are locked last, so
-- that nobody who deletes a certificate waits for its custom CSR.
CREATE TABLE freed_custom_csrs (
    custom_csr_id  TEXT NOT NULL PRIMARY KEY,
    freed_at       INTEGER NOT NULL
) STRICT;

CREATE TRIGGER custom_csrs_freed AFTER DELETE ON custom_certificates
BEGIN
    INSERT INTO freed_custom_csrs (custom_csr_id, freed_at) VALUES (OLD.custom_csr_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)
    ON CONFLICT (custom_csr_id) DO UPDATE SET freed_at = excluded.freed_at;
END;

CREATE TRIGGER custom_csrs_freed_by_another AFTER UPDATE OF custom_csr_id ON custom_certificates WHEN NEW.custom_csr_id <> OLD.custom_csr_id
BEGIN
    INSERT INTO freed_custom_csrs (custom_csr_id, freed_at) VALUES (OLD.custom_csr_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)
    ON CONFLICT (custom_csr_id) DO UPDATE SET freed_at = excluded.freed_at;
END;

CREATE TRIGGER freed_custom_csrs_forgotten AFTER DELETE ON custom_csrs
BEGIN
    DELETE FROM freed_custom_csrs WHERE custom_csr_id = OLD.id;
END;
