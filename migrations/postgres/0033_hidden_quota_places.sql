-- Custom CSRs that share a place in the quota share it while they are hidden, too: whoever hides one, or restores it, changes nothing of what
-- is used. As it is with those that are not hidden, triggers see to it, whatever version of the service moves the rows.
CREATE TABLE hidden_quota_places (
    custom_csr_id  TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- a hidden one
    scope          TEXT COLLATE "C" NOT NULL,
    place          TEXT COLLATE "C" NOT NULL               -- the ID of the first that had it
);

CREATE INDEX hidden_quota_places_shared ON hidden_quota_places (place);

-- Before its row in custom_csrs goes, and its place with it.
CREATE FUNCTION begin_hidden_place() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO hidden_quota_places (custom_csr_id, scope, place)
    SELECT custom_csr_id, scope, place FROM quota_places WHERE custom_csr_id = NEW.id;
    RETURN NULL;
END $$;

CREATE TRIGGER hidden_quota_places_begun AFTER INSERT ON hidden_custom_csrs FOR EACH ROW EXECUTE FUNCTION begin_hidden_place();

-- The place of a custom CSR that is gone was given back: it is taken again if others share it. The row of the scope is locked before others
-- are looked for, so that of two that go at the same time the second sees that the first is gone.
CREATE FUNCTION keep_place(gone_scope TEXT, gone_place TEXT) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    UPDATE scopes SET used = used + 1, beside_quota = beside_quota - 1 WHERE scope = gone_scope;
    IF NOT EXISTS (SELECT 1 FROM quota_places WHERE place = gone_place) AND NOT EXISTS (SELECT 1 FROM hidden_quota_places WHERE place = gone_place)
    THEN
        UPDATE scopes SET used = used - 1, beside_quota = beside_quota + 1 WHERE scope = gone_scope;
    END IF;
END $$;

-- Whoever hides a custom CSR gives nothing back.
CREATE OR REPLACE FUNCTION keep_shared_place() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM hidden_quota_places WHERE custom_csr_id = OLD.custom_csr_id) THEN
        PERFORM keep_place(OLD.scope, OLD.place);
    END IF;
    RETURN NULL;
END $$;

-- One that is restored is in custom_csrs by now.
CREATE FUNCTION end_hidden_place() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE own hidden_quota_places; BEGIN
    DELETE FROM hidden_quota_places WHERE custom_csr_id = OLD.id RETURNING * INTO own;
    IF own.custom_csr_id IS NULL THEN
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT 1 FROM custom_csrs WHERE id = OLD.id) THEN
        INSERT INTO quota_places (custom_csr_id, scope, place) VALUES (own.custom_csr_id, own.scope, own.place);
    ELSE
        PERFORM keep_place(own.scope, own.place);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER hidden_quota_places_ended AFTER DELETE ON hidden_custom_csrs FOR EACH ROW EXECUTE FUNCTION end_hidden_place();
