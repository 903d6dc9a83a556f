-- Which custom CSR a POST with an Idempotency-Key made. A record outlives its custom CSR, so that a repeated POST makes no second one.
CREATE TABLE idempotency_keys (
    scope           TEXT COLLATE "C" NOT NULL,
    key_sha256      BYTEA NOT NULL,          -- of the token's subject and the key
    body_sha256     BYTEA NOT NULL,          -- of the body's bytes
    custom_csr_id   TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT NOT NULL,
    PRIMARY KEY (scope, key_sha256)
);

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
