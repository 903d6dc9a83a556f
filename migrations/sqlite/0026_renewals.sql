-- How a zone has its certificates renewed.
CREATE TABLE renewal_policies (
    scope        TEXT NOT NULL PRIMARY KEY REFERENCES scopes (scope),      -- the zone
    renewal_key  TEXT NOT NULL CHECK (renewal_key IN ('reuse', 'new')),
    fraction     TEXT NOT NULL,                         -- of the lifetime that is left, a decimal over 0 and under 1
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

-- Where the renewal of a certificate stands: due, or csr_ready once its custom CSR is active. It is about the leaf with the fingerprint
-- renewal_leaf: of another leaf, which came in its place, it says that the renewal is done.
ALTER TABLE custom_certificates ADD COLUMN renewal_state TEXT;
ALTER TABLE custom_certificates ADD COLUMN renewal_leaf TEXT;
-- The custom CSR that is to be signed, and why there is none.
ALTER TABLE custom_certificates ADD COLUMN renewal_csr_id TEXT;
ALTER TABLE custom_certificates ADD COLUMN renewal_error TEXT;
-- What its tenant was told of it last (JSON), with which hand-over link, and when.
ALTER TABLE custom_certificates ADD COLUMN renewal_told TEXT;
ALTER TABLE custom_certificates ADD COLUMN renewal_handover_id TEXT;
ALTER TABLE custom_certificates ADD COLUMN renewal_told_at INTEGER;
-- What the issuer says (ARI, RFC 9773) of the leaf with the fingerprint ari_leaf: its window, a moment in it, and where it says why.
ALTER TABLE custom_certificates ADD COLUMN ari_leaf TEXT;
ALTER TABLE custom_certificates ADD COLUMN ari_window_start INTEGER;
ALTER TABLE custom_certificates ADD COLUMN ari_window_end INTEGER;
ALTER TABLE custom_certificates ADD COLUMN renew_after INTEGER;
ALTER TABLE custom_certificates ADD COLUMN renewal_explanation_url TEXT;
-- When it is asked next, attempts that failed in a row, and when its tenant was told that the window has begun.
ALTER TABLE custom_certificates ADD COLUMN ari_next_at INTEGER;
ALTER TABLE custom_certificates ADD COLUMN ari_failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE custom_certificates ADD COLUMN renew_now_told_at INTEGER;

-- As before, with what is known of renewals.
DROP TRIGGER custom_certificates_replaced;
DROP TRIGGER custom_certificates_deleted;
DROP TRIGGER custom_certificates_expiry;

CREATE TRIGGER custom_certificates_replaced AFTER UPDATE OF chain_pem ON custom_certificates
WHEN NEW.chain_pem <> OLD.chain_pem AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, 'custom_certificate.replaced',
        json_object('id', NEW.id, 'scope', NEW.scope, 'custom_csr_id', NEW.custom_csr_id, 'hosts', NEW.hosts, 'issuer', NEW.issuer,
            'signature', NEW.signature, 'not_after', NEW.not_after, 'not_before', NEW.not_before, 'serial_number', NEW.serial_number,
            'fingerprint_sha256', NEW.fingerprint_sha256, 'bundle_method', NEW.bundle_method, 'certificate_type', NEW.certificate_type,
            'priority', NEW.priority, 'uploaded_at', NEW.uploaded_at, 'modified_at', NEW.modified_at,
            'chain_pem', CASE WHEN NEW.described_at IS NEW.modified_at THEN NULL ELSE NEW.chain_pem END,
            'renewal_state', NEW.renewal_state, 'renewal_leaf', NEW.renewal_leaf, 'ari_leaf', NEW.ari_leaf, 'renew_after', NEW.renew_after,
            'renewal_explanation_url', NEW.renewal_explanation_url),
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
            'chain_pem', CASE WHEN OLD.described_at IS OLD.modified_at THEN NULL ELSE OLD.chain_pem END,
            'renewal_state', OLD.renewal_state, 'renewal_leaf', OLD.renewal_leaf, 'ari_leaf', OLD.ari_leaf, 'renew_after', OLD.renew_after,
            'renewal_explanation_url', OLD.renewal_explanation_url),
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
            'chain_pem', CASE WHEN NEW.described_at IS NEW.modified_at THEN NULL ELSE NEW.chain_pem END,
            'renewal_state', NEW.renewal_state, 'renewal_leaf', NEW.renewal_leaf, 'ari_leaf', NEW.ari_leaf, 'renew_after', NEW.renew_after,
            'renewal_explanation_url', NEW.renewal_explanation_url),
        NEW.expiry_told_at, 0
    FROM (SELECT CASE WHEN NEW.expiry_told_until > NEW.not_after THEN 'custom_certificate.expired'
        ELSE 'custom_certificate.expiring' END AS event) AS told
    CROSS JOIN webhooks
    WHERE webhooks.enabled = 1 AND webhooks.created_at < NEW.expiry_told_until
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"' || told.event || '"') > 0);
END;

CREATE TRIGGER custom_certificates_renewal AFTER UPDATE OF renewal_told_at ON custom_certificates
WHEN NEW.renewal_told_at IS NOT NULL AND NEW.renewal_told_at IS NOT OLD.renewal_told_at AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, 'custom_certificate.renewal_due',
        json_object('id', NEW.id, 'scope', NEW.scope, 'custom_csr_id', NEW.custom_csr_id, 'hosts', NEW.hosts, 'issuer', NEW.issuer,
            'signature', NEW.signature, 'not_after', NEW.not_after, 'not_before', NEW.not_before, 'serial_number', NEW.serial_number,
            'fingerprint_sha256', NEW.fingerprint_sha256, 'bundle_method', NEW.bundle_method, 'certificate_type', NEW.certificate_type,
            'priority', NEW.priority, 'uploaded_at', NEW.uploaded_at, 'modified_at', NEW.modified_at,
            'chain_pem', CASE WHEN NEW.described_at IS NEW.modified_at THEN NULL ELSE NEW.chain_pem END,
            'renewal_state', NEW.renewal_state, 'renewal_leaf', NEW.renewal_leaf, 'ari_leaf', NEW.ari_leaf, 'renew_after', NEW.renew_after,
            'renewal_explanation_url', NEW.renewal_explanation_url,
            'renewal_told', json(NEW.renewal_told), 'handover_id', NEW.renewal_handover_id),
        NEW.renewal_told_at, 0
    FROM webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"custom_certificate.renewal_due"') > 0);
END;

CREATE TRIGGER custom_certificates_renew_now AFTER UPDATE OF renew_now_told_at ON custom_certificates
WHEN NEW.renew_now_told_at IS NOT NULL AND NEW.renew_now_told_at IS NOT OLD.renew_now_told_at AND EXISTS (SELECT 1 FROM webhooks)
BEGIN
    INSERT INTO deliveries (id, webhook_id, event, data, occurred_at, next_attempt_at)
    SELECT lower(hex(randomblob(16))), id, 'custom_certificate.renew_now',
        json_object('id', NEW.id, 'scope', NEW.scope, 'custom_csr_id', NEW.custom_csr_id, 'hosts', NEW.hosts, 'issuer', NEW.issuer,
            'signature', NEW.signature, 'not_after', NEW.not_after, 'not_before', NEW.not_before, 'serial_number', NEW.serial_number,
            'fingerprint_sha256', NEW.fingerprint_sha256, 'bundle_method', NEW.bundle_method, 'certificate_type', NEW.certificate_type,
            'priority', NEW.priority, 'uploaded_at', NEW.uploaded_at, 'modified_at', NEW.modified_at,
            'chain_pem', CASE WHEN NEW.described_at IS NEW.modified_at THEN NULL ELSE NEW.chain_pem END,
            'renewal_state', NEW.renewal_state, 'renewal_leaf', NEW.renewal_leaf, 'ari_leaf', NEW.ari_leaf, 'renew_after', NEW.renew_after,
            'renewal_explanation_url', NEW.renewal_explanation_url),
        NEW.renew_now_told_at, 0
    FROM webhooks
    WHERE webhooks.enabled = 1
        AND webhooks.scope IN (NEW.scope, (SELECT 'accounts/' || account_id FROM scopes WHERE scope = NEW.scope))
        AND (instr(webhooks.events, '"*"') > 0 OR instr(webhooks.events, '"custom_certificate.renew_now"') > 0);
END;
