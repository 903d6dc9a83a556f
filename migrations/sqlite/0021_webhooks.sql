-- Key pairs whose public keys seal secrets of webhooks: a process without a master key can make a webhook, and not read its secret.
CREATE TABLE webhook_keys (
    id                  TEXT NOT NULL PRIMARY KEY,
    scope               TEXT NOT NULL,                  -- no tenant's: what the record is bound to
    public_key          BLOB NOT NULL,                  -- X25519
    spki_sha256         BLOB NOT NULL,                  -- of the public key
    master_key_id       TEXT NOT NULL REFERENCES master_keys (id),
    sealed_private_key  BLOB NOT NULL,
    created_at          INTEGER NOT NULL
) STRICT;

-- Who is told of events. One that is not enabled is told nothing.
CREATE TABLE webhooks (
    id               TEXT NOT NULL PRIMARY KEY,
    scope            TEXT NOT NULL REFERENCES scopes (scope),
    url              TEXT NOT NULL,
    events           TEXT NOT NULL,                     -- a JSON array of types, or ["*"]
    description      TEXT,
    enabled          INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    disabled_reason  TEXT,                              -- why the service disabled it
    given_up         INTEGER NOT NULL DEFAULT 0,        -- deliveries that were given up in a row
    webhook_key_id   TEXT NOT NULL REFERENCES webhook_keys (id),
    sealed_secret    BLOB NOT NULL,
    job_id           TEXT NOT NULL DEFAULT '',          -- the job that is to wake a worker for its deliveries
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL
) STRICT;

CREATE INDEX webhooks_of_scope ON webhooks (scope, created_at, id);

-- What webhooks are told: an event, once for each webhook, written in the transaction of what it reports.
CREATE TABLE deliveries (
    id               TEXT NOT NULL PRIMARY KEY,
    webhook_id       TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event            TEXT NOT NULL,
    data             TEXT NOT NULL,                     -- the row that it is about, as JSON
    occurred_at      INTEGER NOT NULL,
    status           TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts         INTEGER NOT NULL DEFAULT 0,
    response_status  INTEGER,
    next_attempt_at  INTEGER,
    CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL))
) STRICT;

CREATE INDEX deliveries_of_webhook ON deliveries (webhook_id, occurred_at, id);
CREATE INDEX deliveries_due ON deliveries (next_attempt_at, webhook_id) WHERE status = 'pending';
CREATE INDEX deliveries_due_of_webhook ON deliveries (webhook_id, next_attempt_at) WHERE status = 'pending';

-- When its tenant was told that an active custom CSR has no certificate.
ALTER TABLE custom_csrs ADD COLUMN stale_told_at INTEGER;
-- Up to which moment the tenant was told of the expiry, and when.
ALTER TABLE custom_certificates ADD COLUMN expiry_told_until INTEGER;
ALTER TABLE custom_certificates ADD COLUMN expiry_told_at INTEGER;

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
            'key_type', NEW.key_type, 'replaces', NEW.replaces) AS data) AS told
    CROSS JOIN webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"' || told.event || '"') > 0);
END;

CREATE TRIGGER custom_certificates_uploaded AFTER INSERT ON custom_certificates WHEN EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, 'custom_certificate.uploaded',
        json_object('id', NEW.id, 'scope', NEW.scope, 'custom_csr_id', NEW.custom_csr_id, 'hosts', NEW.hosts, 'issuer', NEW.issuer,
            'signature', NEW.signature, 'not_after', NEW.not_after, 'not_before', NEW.not_before, 'serial_number', NEW.serial_number,
            'fingerprint_sha256', NEW.fingerprint_sha256, 'bundle_method', NEW.bundle_method, 'certificate_type', NEW.certificate_type,
            'priority', NEW.priority, 'uploaded_at', NEW.uploaded_at, 'modified_at', NEW.modified_at,
            'chain_pem', CASE WHEN NEW.described_at IS NEW.modified_at THEN NULL ELSE NEW.chain_pem END),
        NEW.uploaded_at, 0
    FROM webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"custom_certificate.uploaded"') > 0);
END;

CREATE TRIGGER custom_certificates_replaced AFTER UPDATE OF chain_pem ON custom_certificates
WHEN NEW.chain_pem <> OLD.chain_pem AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, 'custom_certificate.replaced',
        json_object('id', NEW.id, 'scope', NEW.scope, 'custom_csr_id', NEW.custom_csr_id, 'hosts', NEW.hosts, 'issuer', NEW.issuer,
            'signature', NEW.signature, 'not_after', NEW.not_after, 'not_before', NEW.not_before, 'serial_number', NEW.serial_number,
            'fingerprint_sha256', NEW.fingerprint_sha256, 'bundle_method', NEW.bundle_method, 'certificate_type', NEW.certificate_type,
            'priority', NEW.priority, 'uploaded_at', NEW.uploaded_at, 'modified_at', NEW.modified_at,
            'chain_pem', CASE WHEN NEW.described_at IS NEW.modified_at THEN NULL ELSE NEW.chain_pem END),
        NEW.modified_at, 0
    FROM webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"custom_certificate.replaced"') > 0);
END;

CREATE TRIGGER custom_certificates_deleted AFTER DELETE ON custom_certificates WHEN EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, 'custom_certificate.deleted',
        json_object('id', OLD.id, 'scope', OLD.scope, 'custom_csr_id', OLD.custom_csr_id, 'hosts', OLD.hosts, 'issuer', OLD.issuer,
            'signature', OLD.signature, 'not_after', OLD.not_after, 'not_before', OLD.not_before, 'serial_number', OLD.serial_number,
            'fingerprint_sha256', OLD.fingerprint_sha256, 'bundle_method', OLD.bundle_method, 'certificate_type', OLD.certificate_type,
            'priority', OLD.priority, 'uploaded_at', OLD.uploaded_at, 'modified_at', OLD.modified_at,
            'chain_pem', CASE WHEN OLD.described_at IS OLD.modified_at THEN NULL ELSE OLD.chain_pem END),
        CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER), 0
    FROM webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (OLD.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = OLD.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"custom_certificate.deleted"') > 0);
END;

-- Of a moment before a webhook was made, it is not told.
CREATE TRIGGER custom_certificates_expiry AFTER UPDATE OF expiry_told_until ON custom_certificates
WHEN NEW.expiry_told_at IS NOT NULL AND NEW.chain_pem = OLD.chain_pem AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, event,
        json_object('id', NEW.id, 'scope', NEW.scope, 'custom_csr_id', NEW.custom_csr_id, 'hosts', NEW.hosts, 'issuer', NEW.issuer,
            'signature', NEW.signature, 'not_after', NEW.not_after, 'not_before', NEW.not_before, 'serial_number', NEW.serial_number,
            'fingerprint_sha256', NEW.fingerprint_sha256, 'bundle_method', NEW.bundle_method, 'certificate_type', NEW.certificate_type,
            'priority', NEW.priority, 'uploaded_at', NEW.uploaded_at, 'modified_at', NEW.modified_at,
            'chain_pem', CASE WHEN NEW.described_at IS NEW.modified_at THEN NULL ELSE NEW.chain_pem END),
        NEW.expiry_told_at, 0
    FROM (SELECT CASE WHEN NEW.expiry_told_until > NEW.not_after THEN 'custom_certificate.expired'
        ELSE 'custom_certificate.expiring' END AS event) AS told
    CROSS JOIN webhooks
    WHERE webhooks.enabled = 1 AND webhooks.created_at < NEW.expiry_told_until
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"' || told.event || '"') > 0);
END;
