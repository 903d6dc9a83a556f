-- The set that a custom CSR is one of: those of one request for several key types, and what rekeys made of them. Null: none.
ALTER TABLE custom_csrs ADD COLUMN set_id TEXT COLLATE "C";
ALTER TABLE hidden_custom_csrs ADD COLUMN set_id TEXT COLLATE "C";

-- All that a POST with an Idempotency-Key made, where it made several: their IDs, with commas between, custom_csr_id first.
ALTER TABLE idempotency_keys ADD COLUMN custom_csr_ids TEXT;

-- Events tell of the set too.
CREATE OR REPLACE FUNCTION record_csr_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT 1 FROM webhooks) THEN
        PERFORM record_event(CASE WHEN NEW.status = OLD.status THEN 'custom_csr.stale' ELSE 'custom_csr.' || NEW.status END, NEW.scope,
            CASE WHEN NEW.status = OLD.status THEN NEW.stale_told_at ELSE NEW.updated_at END,
            json_build_object('id', NEW.id, 'scope', NEW.scope, 'account_id', NEW.account_id, 'status', NEW.status, 'error', NEW.error,
                'created_at', NEW.created_at, 'updated_at', NEW.updated_at, 'country', NEW.country, 'state', NEW.state,
                'locality', NEW.locality, 'organization', NEW.organization, 'organizational_unit', NEW.organizational_unit,
                'common_name', NEW.common_name, 'name', NEW.name, 'description', NEW.description, 'sans', NEW.sans,
                'key_type', NEW.key_type, 'replaces', NEW.replaces, 'set_id', NEW.set_id), NULL);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION record_incident_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT 1 FROM webhooks) THEN
        PERFORM record_event('custom_csr.incident_rekeyed', NEW.scope, NEW.updated_at,
            json_build_object('id', NEW.id, 'scope', NEW.scope, 'account_id', NEW.account_id, 'status', NEW.status, 'error', NEW.error,
                'created_at', NEW.created_at, 'updated_at', NEW.updated_at, 'country', NEW.country, 'state', NEW.state,
                'locality', NEW.locality, 'organization', NEW.organization, 'organizational_unit', NEW.organizational_unit,
                'common_name', NEW.common_name, 'name', NEW.name, 'description', NEW.description, 'sans', NEW.sans,
                'key_type', NEW.key_type, 'replaces', NEW.replaces, 'set_id', NEW.set_id,
                'handover_id', (SELECT handover_id FROM incident_rekeys WHERE new_custom_csr_id = NEW.id)), NULL);
    END IF;
    RETURN NULL;
END $$;
