-- The set that a custom CSR is one of: those of one request for several key types, and what rekeys made of them. Null: none.
ALTER TABLE custom_csrs ADD COLUMN set_id TEXT;
ALTER TABLE hidden_custom_csrs ADD COLUMN set_id TEXT;

-- All that a POST with an Idempotency-Key made, where it made several: their IDs, with commas between, custom_csr_id first.
ALTER TABLE idempotency_keys ADD COLUMN custom_csr_ids TEXT;

-- Events tell of the set too.
DROP TRIGGER custom_csrs_event;
CREATE TRIGGER custom_csrs_event AFTER UPDATE OF status, stale_told_at ON custom_csrs
WHEN ((OLD.status = 'pending' AND NEW.status <> 'pending') OR (OLD.stale_told_at IS NULL AND NEW.stale_told_at IS NOT NULL))
    AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, event, data, occurred_at, 0
    FROM (SELECT CASE WHEN NEW.status = OLD.status THEN 'custom_csr.stale' ELSE 'custom_csr.' || NEW.status END AS event,
        CASE WHEN NEW.status = OLD.status THEN NEW.stale_told_at ELSE NEW.updated_at END AS occurred_at,
        json_object('id', NEW.id, 'scope', NEW.scope, 'account_id', NEW.account_id, 'status', NEW.status, 'error', NEW.error,
            'created_at', NEW.created_at, 'updated_at', NEW.updated_at, 'country', NEW.country, 'state', NEW.state,
            'locality', NEW.locality, 'organization', NEW.organization, 'organizational_unit', NEW.organizational_unit,
            'common_name', NEW.common_name, 'name', NEW.name, 'description', NEW.description, 'sans', NEW.sans,
            'key_type', NEW.key_type, 'replaces', NEW.replaces, 'set_id', NEW.set_id) AS data) AS told
    CROSS JOIN webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"' || told.event || '"') > 0);
END;

DROP TRIGGER custom_csrs_incident;
CREATE TRIGGER custom_csrs_incident AFTER UPDATE OF status ON custom_csrs
WHEN OLD.status = 'pending' AND NEW.status = 'active' AND NEW.incident_id IS NOT NULL AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, 'custom_csr.incident_rekeyed',
        json_object('id', NEW.id, 'scope', NEW.scope, 'account_id', NEW.account_id, 'status', NEW.status, 'error', NEW.error,
            'created_at', NEW.created_at, 'updated_at', NEW.updated_at, 'country', NEW.country, 'state', NEW.state,
            'locality', NEW.locality, 'organization', NEW.organization, 'organizational_unit', NEW.organizational_unit,
            'common_name', NEW.common_name, 'name', NEW.name, 'description', NEW.description, 'sans', NEW.sans,
            'key_type', NEW.key_type, 'replaces', NEW.replaces, 'set_id', NEW.set_id,
            'handover_id', (SELECT handover_id FROM incident_rekeys WHERE new_custom_csr_id = NEW.id)),
        NEW.updated_at, 0
    FROM webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"custom_csr.incident_rekeyed"') > 0);
END;
