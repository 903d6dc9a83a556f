-- Plans of rekeys, for when many private keys or certificates have to be replaced at once. A plan changes nothing until it is started.
CREATE TABLE incidents (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    status        TEXT COLLATE "C" NOT NULL DEFAULT 'planned' CHECK (status IN ('planned', 'running', 'stopped', 'done')),
    filters       TEXT NOT NULL,                        -- JSON: which certificates were asked for
    created_at    BIGINT NOT NULL,
    started_at    BIGINT,                               -- first
    started_by    TEXT,                                 -- os:USER, whom the audit entries of the rekeys name
    ended_at      BIGINT,
    pause         BIGINT CHECK (pause > 0),             -- microseconds between two rekeys of all workers together; null: none
    next_at       BIGINT,                               -- when the next rekey is due, by the database's clock
    runner        TEXT COLLATE "C" NOT NULL DEFAULT '', -- who takes the turns,
    runner_until  BIGINT NOT NULL DEFAULT 0,            -- until then, by the database's clock
    job_id        TEXT COLLATE "C" NOT NULL DEFAULT ''  -- the job that is to wake a worker for it
);

-- The certificates that a plan is about.
CREATE TABLE incident_certificates (
    incident_id     TEXT COLLATE "C" NOT NULL REFERENCES incidents (id),
    certificate_id  TEXT COLLATE "C" NOT NULL,
    scope           TEXT COLLATE "C" NOT NULL,          -- the zone
    custom_csr_id   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (incident_id, certificate_id)
);

CREATE INDEX incident_certificates_of_csr ON incident_certificates (incident_id, custom_csr_id);

-- Their custom CSRs, each of which a plan rekeys once at most. A row outlives its custom CSR: it counts as progress.
CREATE TABLE incident_rekeys (
    incident_id        TEXT COLLATE "C" NOT NULL REFERENCES incidents (id),
    custom_csr_id      TEXT COLLATE "C" NOT NULL,
    scope              TEXT COLLATE "C" NOT NULL,       -- of the custom CSR
    state              TEXT COLLATE "C" NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'rekeyed', 'skipped')),
    earlier            BIGINT NOT NULL,                 -- how often plans had rekeyed it when this plan was made
    reason             TEXT COLLATE "C",                -- why it was skipped
    new_custom_csr_id  TEXT COLLATE "C" UNIQUE,
    handover_id        TEXT COLLATE "C",                -- the link that the event tells of
    rekeyed_at         BIGINT,
    PRIMARY KEY (incident_id, custom_csr_id),
    CHECK ((state = 'skipped') = (reason IS NOT NULL)),
    CHECK ((state = 'rekeyed') = (new_custom_csr_id IS NOT NULL))
);

CREATE INDEX incident_rekeys_planned ON incident_rekeys (incident_id, custom_csr_id) WHERE state = 'planned';
CREATE INDEX incident_rekeys_of_csr ON incident_rekeys (custom_csr_id);

-- Custom CSRs that share one place in the quota: one, and those that plans made of it. The last of them gives the place back.
CREATE TABLE quota_places (
    custom_csr_id  TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES custom_csrs (id) ON DELETE CASCADE,
    scope          TEXT COLLATE "C" NOT NULL,
    place          TEXT COLLATE "C" NOT NULL            -- the ID of the first
);

CREATE INDEX quota_places_shared ON quota_places (place);

-- Those custom CSRs that have no place of their own.
ALTER TABLE scopes ADD COLUMN beside_quota BIGINT NOT NULL DEFAULT 0;

-- Whoever deletes a custom CSR gives its place back, and knows nothing of shared ones: here it is taken again. The row of the scope is locked
-- before others are looked for, so that of two that go at the same time the second sees that the first is gone.
CREATE FUNCTION keep_shared_place() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE scopes SET used = used + 1, beside_quota = beside_quota - 1 WHERE scope = OLD.scope;
    IF NOT EXISTS (SELECT 1 FROM quota_places WHERE place = OLD.place) THEN
        UPDATE scopes SET used = used - 1, beside_quota = beside_quota + 1 WHERE scope = OLD.scope;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER quota_places_kept AFTER DELETE ON quota_places FOR EACH ROW EXECUTE FUNCTION keep_shared_place();

-- The plan that made a custom CSR.
ALTER TABLE custom_csrs ADD COLUMN incident_id TEXT COLLATE "C";

CREATE FUNCTION record_incident_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT 1 FROM webhooks) THEN
        PERFORM record_event('custom_csr.incident_rekeyed', NEW.scope, NEW.updated_at,
            json_build_object('id', NEW.id, 'scope', NEW.scope, 'account_id', NEW.account_id, 'status', NEW.status, 'error', NEW.error,
                'created_at', NEW.created_at, 'updated_at', NEW.updated_at, 'country', NEW.country, 'state', NEW.state,
                'locality', NEW.locality, 'organization', NEW.organization, 'organizational_unit', NEW.organizational_unit,
                'common_name', NEW.common_name, 'name', NEW.name, 'description', NEW.description, 'sans', NEW.sans,
                'key_type', NEW.key_type, 'replaces', NEW.replaces,
                'handover_id', (SELECT handover_id FROM incident_rekeys WHERE new_custom_csr_id = NEW.id)), NULL);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER custom_csrs_incident AFTER UPDATE OF status ON custom_csrs FOR EACH ROW
WHEN (OLD.status = 'pending' AND NEW.status = 'active' AND NEW.incident_id IS NOT NULL)
EXECUTE FUNCTION record_incident_event();
