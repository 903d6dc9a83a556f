-- The numbers of the entries that the transaction under way may delete, since they are in a file. A row cannot be committed: it would need
-- another one, which may not be there.
CREATE TABLE archiving (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    never  INTEGER NOT NULL DEFAULT 0 CHECK (never = 0) REFERENCES archiving (id) DEFERRABLE INITIALLY DEFERRED,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL
) STRICT;

DROP TRIGGER audit_no_delete;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit WHEN NOT EXISTS (SELECT 1 FROM archiving WHERE OLD.number BETWEEN first AND last)
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;
