-- How a zone has its certificates renewed.
CREATE TABLE renewal_policies (
    scope        TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES scopes (scope),      -- the zone
    renewal_key  TEXT NOT NULL CHECK (renewal_key IN ('reuse', 'new')),
    fraction     TEXT NOT NULL,                         -- of the lifetime that is left, a decimal over 0 and under 1
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);

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
ALTER TABLE custom_certificates ADD COLUMN renewal_told_at BIGINT;
-- What the issuer says (ARI, RFC 9773) of the leaf with the fingerprint ari_leaf: its window, a moment in it, and where it says why.
ALTER TABLE custom_certificates ADD COLUMN ari_leaf TEXT;
ALTER TABLE custom_certificates ADD COLUMN ari_window_start BIGINT;
ALTER TABLE custom_certificates ADD COLUMN ari_window_end BIGINT;
ALTER TABLE custom_certificates ADD COLUMN renew_after BIGINT;
ALTER TABLE custom_certificates ADD COLUMN renewal_explanation_url TEXT;
-- When it is asked next, attempts that failed in a row, and when its tenant was told that the window has begun.
ALTER TABLE custom_certificates ADD COLUMN ari_next_at BIGINT;
ALTER TABLE custom_certificates ADD COLUMN ari_failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE custom_certificates ADD COLUMN renew_now_told_at BIGINT;

-- As before, with what is known of renewals.
CREATE OR REPLACE FUNCTION record_certificate_event() RETURNS trigger LANGUAGE plpgsql AS $$
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
                WHEN 'renewal_due' THEN told.renewal_told_at WHEN 'renew_now' THEN told.renew_now_told_at
                ELSE CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) END,
            json_build_object('id', told.id, 'scope', told.scope, 'custom_csr_id', told.custom_csr_id, 'hosts', told.hosts,
                'issuer', told.issuer, 'signature', told.signature, 'not_after', told.not_after, 'not_before', told.not_before,
                'serial_number', told.serial_number, 'fingerprint_sha256', told.fingerprint_sha256, 'bundle_method', told.bundle_method,
                'certificate_type', told.certificate_type, 'priority', told.priority, 'uploaded_at', told.uploaded_at,
                'modified_at', told.modified_at,
                'chain_pem', CASE WHEN told.described_at IS NOT DISTINCT FROM told.modified_at THEN NULL ELSE told.chain_pem END,
                'renewal_state', told.renewal_state, 'renewal_leaf', told.renewal_leaf, 'ari_leaf', told.ari_leaf,
                'renew_after', told.renew_after, 'renewal_explanation_url', told.renewal_explanation_url,
                'renewal_told', CASE WHEN TG_ARGV[0] = 'renewal_due' THEN CAST(told.renewal_told AS json) END,
                'handover_id', CASE WHEN TG_ARGV[0] = 'renewal_due' THEN told.renewal_handover_id END),
            CASE WHEN TG_ARGV[0] = 'expiry' THEN told.expiry_told_until END);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER custom_certificates_renewal AFTER UPDATE OF renewal_told_at ON custom_certificates FOR EACH ROW
WHEN (NEW.renewal_told_at IS NOT NULL AND NEW.renewal_told_at IS DISTINCT FROM OLD.renewal_told_at)
EXECUTE FUNCTION record_certificate_event('renewal_due');
CREATE TRIGGER custom_certificates_renew_now AFTER UPDATE OF renew_now_told_at ON custom_certificates FOR EACH ROW
WHEN (NEW.renew_now_told_at IS NOT NULL AND NEW.renew_now_told_at IS DISTINCT FROM OLD.renew_now_told_at)
EXECUTE FUNCTION record_certificate_event('renew_now');
