-- Custom CSRs that share a place in the quota share it while they are hidden, too: whoever hides one, or restores it, changes nothing of what
-- is used. As it is with those that are not hidden, triggers see to it, whatever version of the service moves the rows.
CREATE TABLE hidden_quota_places (
    custom_csr_id  TEXT NOT NULL PRIMARY KEY,           -- a hidden one
    scope          TEXT NOT NULL,
    place          TEXT NOT NULL                        -- the ID of the first that had it
) STRICT;

CREATE INDEX hidden_quota_places_shared ON hidden_quota_places (place);

-- Before its row in custom_csrs goes, and its place with it.
CREATE TRIGGER hidden_quota_places_begun AFTER INSERT ON hidden_custom_csrs
BEGIN
    INSERT INTO hidden_quota_places (custom_csr_id, scope, place)
    SELECT custom_csr_id, scope, place FROM quota_places WHERE custom_csr_id = NEW.id;
END;

-- Whoever hides a custom CSR gives nothing back. Whoever deletes one gives its place back, which is taken again if others share it.
DROP TRIGGER quota_places_kept;

CREATE TRIGGER quota_places_kept AFTER DELETE ON quota_places
WHEN NOT EXISTS (SELECT 1 FROM hidden_quota_places WHERE custom_csr_id = OLD.custom_csr_id)
    AND (EXISTS (SELECT 1 FROM quota_places WHERE place = OLD.place) OR EXISTS (SELECT 1 FROM hidden_quota_places WHERE place = OLD.place))
BEGIN
    UPDATE scopes SET used = used + 1, beside_quota = beside_quota - 1 WHERE scope = OLD.scope;
END;

-- One that is restored is in custom_csrs by now.
CREATE TRIGGER hidden_quota_places_ended AFTER DELETE ON hidden_custom_csrs
WHEN EXISTS (SELECT 1 FROM hidden_quota_places WHERE custom_csr_id = OLD.id)
BEGIN
    INSERT INTO quota_places (custom_csr_id, scope, place)
    SELECT custom_csr_id, scope, place FROM hidden_quota_places
    WHERE custom_csr_id = OLD.id AND EXISTS (SELECT 1 FROM custom_csrs WHERE id = OLD.id);
    UPDATE scopes SET used = used + 1, beside_quota = beside_quota - 1
    WHERE scope = OLD.scope AND NOT EXISTS (SELECT 1 FROM custom_csrs WHERE id = OLD.id) AND EXISTS (
        SELECT 1 FROM hidden_quota_places AS own
        WHERE own.custom_csr_id = OLD.id AND (EXISTS (SELECT 1 FROM quota_places WHERE place = own.place)
            OR EXISTS (SELECT 1 FROM hidden_quota_places AS other WHERE other.place = own.place AND other.custom_csr_id <> OLD.id))
    );
    DELETE FROM hidden_quota_places WHERE custom_csr_id = OLD.id;
END;
