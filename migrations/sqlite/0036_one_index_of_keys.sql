-- The UNIQUE constraint on the keys has an index, which finds a custom CSR by its public key as well. A second one cost each key a write.
DROP INDEX custom_csrs_key;
