-- When a custom CSR lost a certificate last: it is not stale before it has had none for long. A table of its own, whose rows are locked last, so
-- that nobody who deletes a certificate waits for its custom CSR.
CREATE TABLE freed_custom_csrs (
    custom_csr_id  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    freed_at       BIGINT NOT NULL
);

CREATE FUNCTION free_custom_csr() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO freed_custom_csrs (custom_csr_id, freed_at)
    VALUES (OLD.custom_csr_id, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT))
    ON CONFLICT (custom_csr_id) DO UPDATE SET freed_at = excluded.freed_at;
    RETURN NULL;
END $$;

CREATE TRIGGER custom_csrs_freed AFTER DELETE ON custom_certificates FOR EACH ROW EXECUTE FUNCTION free_custom_csr();

CREATE TRIGGER custom_csrs_freed_by_another AFTER UPDATE OF custom_csr_id ON custom_certificates FOR EACH ROW
WHEN (NEW.custom_csr_id <> OLD.custom_csr_id) EXECUTE FUNCTION free_custom_csr();

CREATE FUNCTION forget_freed_custom_csr() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM freed_custom_csrs WHERE custom_csr_id = OLD.id;
    RETURN NULL;
END $$;

CREATE TRIGGER freed_custom_csrs_forgotten AFTER DELETE ON custom_csrs FOR EACH ROW EXECUTE FUNCTION forget_freed_custom_csr();
