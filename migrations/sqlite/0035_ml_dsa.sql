-- ML-DSA-44 keys. As in 0018, the schema is changed itself: the rows stay as they are.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, '''ed25519'')', '''ed25519'', ''mldsa44'')')
WHERE type = 'table' AND name = 'custom_csrs';
PRAGMA writable_schema = RESET;
-- Other connections, and statements that are prepared, read the schema anew when it changes in the usual way.
CREATE TABLE schema_changes (never INTEGER) STRICT;
DROP TABLE schema_changes;
