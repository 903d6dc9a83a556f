-- The custom CSR that a rekey is to replace. It may be gone.
ALTER TABLE custom_csrs ADD COLUMN replaces TEXT COLLATE "C";

-- The certificates that came back. While one is not expired, its custom CSR stays.
CREATE TABLE custom_certificates (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,             -- 32 hexadecimal digits
    scope            TEXT COLLATE "C" NOT NULL REFERENCES scopes (scope),           -- the zone
    custom_csr_id    TEXT COLLATE "C" NOT NULL REFERENCES custom_csrs (id),
    chain_pem        TEXT NOT NULL,                     -- as sent, the leaf first
    hosts            TEXT NOT NULL,                     -- a JSON array of strings
    issuer           TEXT NOT NULL,
    signature        TEXT NOT NULL,
    not_after        BIGINT NOT NULL,                   -- valid until the end of this second
    bundle_method    TEXT NOT NULL CHECK (bundle_method IN ('ubiquitous', 'optimal', 'force')),
    certificate_type TEXT NOT NULL CHECK (certificate_type IN ('sni_custom', 'legacy_custom')),
    uploaded_at      BIGINT NOT NULL,
    modified_at      BIGINT NOT NULL
);

CREATE INDEX custom_certificates_newest ON custom_certificates (scope, uploaded_at, id);
CREATE INDEX custom_certificates_of_csr ON custom_certificates (custom_csr_id, uploaded_at, id);

-- Who did what. Entries are written with what they record, and never change.
CREATE TABLE audit (
    number       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           BIGINT NOT NULL,
    who          TEXT NOT NULL,     -- the token's subject, or os:USER
    origin       TEXT NOT NULL,     -- the peer's address, or local
    action       TEXT NOT NULL,
    resource     TEXT NOT NULL,     -- custom_csr/ID and the like
    scope        TEXT COLLATE "C" NOT NULL,     -- zones/ID or accounts/ID; the ID * stands for all
    request_id   TEXT
);

CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_scope ON audit (scope, number);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit table is append-only'; END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
