-- More types of keys. SQLite changes no CHECK but by a copy of the whole table, or in the schema itself, as here: the rows stay as they are
-- (https://www.sqlite.org/lang_altertable.html, section 7).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, 'IN (''rsa2048'', ''p256v1'')', 'IN (''rsa2048'', ''p256v1'', ''rsa3072'', ''rsa4096'', ''p384'', ''ed25519'')')
WHERE type = 'table' AND name = 'custom_csrs';
PRAGMA writable_schema = RESET;
-- Other connections, and statements that are prepared, read the schema anew when it changes in the usual way.
CREATE TABLE schema_changes (never INTEGER) STRICT;
DROP TABLE schema_changes;
