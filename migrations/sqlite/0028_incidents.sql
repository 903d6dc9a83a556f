-- Plans of rekeys, for when many private keys or certificates have to be replaced at once. A plan changes nothing until it is started.
CREATE TABLE incidents (
    id            TEXT NOT NULL PRIMARY KEY,
    status        TEXT NOT NULL DEFAULT 'planned' CHECK (status IN ('planned', 'running', 'stopped', 'done')),
    filters       TEXT NOT NULL,                        -- JSON: which certificates were asked for
    created_at    INTEGER NOT NULL,
    started_at    INTEGER,                              -- first
    started_by    TEXT,                                 -- os:USER, whom the audit entries of the rekeys name
    ended_at      INTEGER,
    pause         INTEGER CHECK (pause > 0),            -- microseconds between two rekeys of all workers together; null: none
    next_at       INTEGER,                              -- when the next rekey is due, by the database's clock
    runner        TEXT NOT NULL DEFAULT '',             -- who takes the turns,
    runner_until  INTEGER NOT NULL DEFAULT 0,           -- until then, by the database's clock
    job_id        TEXT NOT NULL DEFAULT ''              -- the job that is to wake a worker for it
) STRICT;

-- The certificates that a plan is about.
CREATE TABLE incident_certificates (
    incident_id     TEXT NOT NULL REFERENCES incidents (id),
    certificate_id  TEXT NOT NULL,
    scope           TEXT NOT NULL,                      -- the zone
    custom_csr_id   TEXT NOT NULL,
    PRIMARY KEY (incident_id, certificate_id)
) STRICT;

CREATE INDEX incident_certificates_of_csr ON incident_certificates (incident_id, custom_csr_id);

-- Their custom CSRs, each of which a plan rekeys once at most. A row outlives its custom CSR: it counts as progress.
CREATE TABLE incident_rekeys (
    incident_id        TEXT NOT NULL REFERENCES incidents (id),
    custom_csr_id      TEXT NOT NULL,
    scope              TEXT NOT NULL,                   -- of the custom CSR
    state              TEXT NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'rekeyed', 'skipped')),
    earlier            INTEGER NOT NULL,                -- how often plans had rekeyed it when this plan was made
    reason             TEXT,                            -- why it was skipped
    new_custom_csr_id  TEXT UNIQUE,
    handover_id        TEXT,                            -- the link that the event tells of
    rekeyed_at         INTEGER,
    PRIMARY KEY (incident_id, custom_csr_id),
    CHECK ((state = 'skipped') = (reason IS NOT NULL)),
    CHECK ((state = 'rekeyed') = (new_custom_csr_id IS NOT NULL))
) STRICT;

CREATE INDEX incident_rekeys_planned ON incident_rekeys (incident_id, custom_csr_id) WHERE state = 'planned';
CREATE INDEX incident_rekeys_of_csr ON incident_rekeys (custom_csr_id);

-- Custom CSRs that share one place in the quota: one, and those that plans made of it. The last of them gives the place back.
CREATE TABLE quota_places (
    custom_csr_id  TEXT NOT NULL PRIMARY KEY REFERENCES custom_csrs (id) ON DELETE CASCADE,
    scope          TEXT NOT NULL,
    place          TEXT NOT NULL                        -- the ID of the first
) STRICT;

CREATE INDEX quota_places_shared ON quota_places (place);

-- Those custom CSRs that have no place of their own.
ALTER TABLE scopes ADD COLUMN beside_quota INTEGER NOT NULL DEFAULT 0;

-- Whoever deletes a custom CSR gives its place back, and knows nothing of shared ones: here it is taken again.
CREATE TRIGGER quota_places_kept AFTER DELETE ON quota_places
WHEN EXISTS (SELECT 1 FROM quota_places WHERE place = OLD.place)
BEGIN
    UPDATE scopes SET used = used + 1, beside_quota = beside_quota - 1 WHERE scope = OLD.scope;
END;

-- The plan that made a custom CSR.
ALTER TABLE custom_csrs ADD COLUMN incident_id TEXT;

CREATE TRIGGER custom_csrs_incident AFTER UPDATE OF status ON custom_csrs
WHEN OLD.status = 'pending' AND NEW.status = 'active' AND NEW.incident_id IS NOT NULL AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, 'custom_csr.incident_rekeyed',
        json_object('id', NEW.id, 'scope', NEW.scope, 'account_id', NEW.account_id, 'status', NEW.status, 'error', NEW.error,
            'created_at', NEW.created_at, 'updated_at', NEW.updated_at, 'country', NEW.country, 'state', NEW.state,
            'locality', NEW.locality, 'organization', NEW.organization, 'organizational_unit', NEW.organizational_unit,
            'common_name', NEW.common_name, 'name', NEW.name, 'description', NEW.description, 'sans', NEW.sans,
            'key_type', NEW.key_type, 'replaces', NEW.replaces,
            'handover_id', (SELECT handover_id FROM incident_rekeys WHERE new_custom_csr_id = NEW.id)),
        NEW.updated_at, 0
    FROM webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"custom_csr.incident_rekeyed"') > 0);
END;
