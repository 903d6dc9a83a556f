-- ML-DSA-44 keys. The rows that are there are of other types: they need no check, which would keep everybody waiting.
ALTER TABLE custom_csrs DROP CONSTRAINT custom_csrs_key_type_check;
ALTER TABLE custom_csrs ADD CONSTRAINT custom_csrs_key_type_check
    CHECK (key_type IN ('rsa2048', 'p256v1', 'rsa3072', 'rsa4096', 'p384', 'ed25519', 'mldsa44')) NOT VALID;
