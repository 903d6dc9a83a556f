-- Key pairs whose public keys seal secrets of webhooks: a process without a master key can make a webhook, and not read its secret.
CREATE TABLE webhook_keys (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    scope               TEXT COLLATE "C" NOT NULL,      -- no tenant's: what the record is bound to
    public_key          BYTEA NOT NULL,                 -- X25519
    spki_sha256         BYTEA NOT NULL,                 -- of the public key
    master_key_id       TEXT COLLATE "C" NOT NULL REFERENCES master_keys (id),
    sealed_private_key  BYTEA NOT NULL,
    created_at          BIGINT NOT NULL
);

-- Who is told of events. One that is not enabled is told nothing.
CREATE TABLE webhooks (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    scope            TEXT COLLATE "C" NOT NULL REFERENCES scopes (scope),
    url              TEXT NOT NULL,
    events           TEXT NOT NULL,                     -- a JSON array of types, or ["*"]
    description      TEXT,
    enabled          BIGINT NOT NULL CHECK (enabled IN (0, 1)),
    disabled_reason  TEXT,                              -- why the service disabled it
    given_up         BIGINT NOT NULL DEFAULT 0,         -- deliveries that were given up in a row
    webhook_key_id   TEXT COLLATE "C" NOT NULL REFERENCES webhook_keys (id),
    sealed_secret    BYTEA NOT NULL,
    job_id           TEXT COLLATE "C" NOT NULL DEFAULT '',      -- the job that is to wake a worker for its deliveries
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL
);

CREATE INDEX webhooks_of_scope ON webhooks (scope, created_at, id);

-- What webhooks are told: an event, once for each webhook, written in the transaction of what it reports.
CREATE TABLE deliveries (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    webhook_id       TEXT COLLATE "C" NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event            TEXT NOT NULL,
    data             TEXT NOT NULL,                     -- the row that it is about, as JSON
    occurred_at      BIGINT NOT NULL,
    status           TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts         BIGINT NOT NULL DEFAULT 0,
    response_status  BIGINT,
    next_attempt_at  BIGINT,
    CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL))
);

CREATE INDEX deliveries_of_webhook ON deliveries (webhook_id, occurred_at, id);
CREATE INDEX deliveries_due ON deliveries (next_attempt_at, webhook_id) WHERE status = 'pending';
CREATE INDEX deliveries_due_of_webhook ON deliveries (webhook_id, next_attempt_at) WHERE status = 'pending';

-- When its tenant was told that an active custom CSR has no certificate.
ALTER TABLE custom_csrs ADD COLUMN stale_told_at BIGINT;
-- Up to which moment the tenant was told of the expiry, and when.
ALTER TABLE custom_certificates ADD COLUMN expiry_told_until BIGINT;
ALTER TABLE custom_certificates ADD COLUMN expiry_told_at BIGINT;

-- Tells the webhooks of a scope, and those of the account that it belongs to, but for those that were made after `told_of`.
CREATE FUNCTION record_event(event_type TEXT, event_scope TEXT, at BIGINT, event_data JSON, told_of BIGINT) RETURNS void LANGUAGE sql AS $$
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT replace(CAST(gen_random_uuid() AS TEXT), '-', ''), id, event_type, CAST(event_data AS TEXT), at, 0 FROM webhooks
    WHERE enabled = 1 AND (told_of IS NULL OR created_at < told_of)
        AND (scope = event_scope OR scope = (SELECT 'accounts/' || account_id FROM scopes WHERE scopes.scope = event_scope))
        AND (strpos(events, '"*"') > 0 OR strpos(events, '"' || event_type || '"') > 0);
$$;

CREATE FUNCTION record_csr_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT 1 FROM webhooks) THEN
        PERFORM record_event(CASE WHEN NEW.status = OLD.status THEN 'custom_csr.stale' ELSE 'custom_csr.' || NEW.status END, NEW.scope,
            CASE WHEN NEW.status = OLD.status THEN NEW.stale_told_at ELSE NEW.updated_at END,
            json_build_object('id', NEW.id, 'scope', NEW.scope, 'account_id', NEW.account_id, 'status', NEW.status, 'error', NEW.error,
                'created_at', NEW.created_at, 'updated_at', NEW.updated_at, 'country', NEW.country, 'state', NEW.state,
                'locality', NEW.locality, 'organization', NEW.organization, 'organizational_unit', NEW.organizational_unit,
                'common_name', NEW.common_name, 'name', NEW.name, 'description', NEW.description, 'sans', NEW.sans,
                'key_type', NEW.key_type, 'replaces', NEW.replaces), NULL);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER custom_csrs_event AFTER UPDATE OF status, stale_told_at ON custom_csrs FOR EACH ROW
WHEN ((OLD.status = 'pending' AND NEW.status <> 'pending') OR (OLD.stale_told_at IS NULL AND NEW.stale_told_at IS NOT NULL))
EXECUTE FUNCTION record_csr_event();

CREATE FUNCTION record_certificate_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    told custom_certificates := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF EXISTS (SELECT 1 FROM webhooks) THEN
        PERFORM record_event('custom_certificate.' || CASE
                WHEN TG_ARGV[0] <> 'expiry' THEN TG_ARGV[0]
                WHEN told.expiry_told_until > told.not_after THEN 'expired'
                ELSE 'expiring' END,
            told.scope,
            CASE TG_ARGV[0] WHEN 'uploaded' THEN told.uploaded_at WHEN 'replaced' THEN told.modified_at WHEN 'expiry' THEN told.expiry_told_at
                ELSE CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) END,
            json_build_object('id', told.id, 'scope', told.scope, 'custom_csr_id', told.custom_csr_id, 'hosts', told.hosts,
                'issuer', told.issuer, 'signature', told.signature, 'not_after', told.not_after, 'not_before', told.not_before,
                'serial_number', told.serial_number, 'fingerprint_sha256', told.fingerprint_sha256, 'bundle_method', told.bundle_method,
                'certificate_type', told.certificate_type, 'priority', told.priority, 'uploaded_at', told.uploaded_at,
                'modified_at', told.modified_at,
                'chain_pem', CASE WHEN told.described_at IS NOT DISTINCT FROM told.modified_at THEN NULL ELSE told.chain_pem END),
            CASE WHEN TG_ARGV[0] = 'expiry' THEN told.expiry_told_until END);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER custom_certificates_uploaded AFTER INSERT ON custom_certificates FOR EACH ROW
EXECUTE FUNCTION record_certificate_event('uploaded');
CREATE TRIGGER custom_certificates_replaced AFTER UPDATE OF chain_pem ON custom_certificates FOR EACH ROW
WHEN (NEW.chain_pem <> OLD.chain_pem) EXECUTE FUNCTION record_certificate_event('replaced');
CREATE TRIGGER custom_certificates_deleted AFTER DELETE ON custom_certificates FOR EACH ROW
EXECUTE FUNCTION record_certificate_event('deleted');
-- Of a moment before a webhook was made, it is not told.
CREATE TRIGGER custom_certificates_expiry AFTER UPDATE OF expiry_told_until ON custom_certificates FOR EACH ROW
WHEN (NEW.expiry_told_at IS NOT NULL AND NEW.chain_pem = OLD.chain_pem) EXECUTE FUNCTION record_certificate_event('expiry');
