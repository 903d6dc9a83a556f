-- The numbers of the entries that the transaction under way may delete, since they are in a file. A row cannot be committed: it would need
-- another one, which may not be there.
CREATE TABLE archiving (
    id     BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    never  BIGINT NOT NULL DEFAULT 0 CHECK (never = 0) REFERENCES archiving (id) DEFERRABLE INITIALLY DEFERRED,
    first  BIGINT NOT NULL,
    last   BIGINT NOT NULL
);

CREATE FUNCTION refuse_audit_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM archiving WHERE OLD.number BETWEEN first AND last) THEN
        RAISE EXCEPTION 'the audit table is append-only';
    END IF;
    RETURN OLD;
END $$;

DROP TRIGGER audit_append_only ON audit;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_audit_delete();
