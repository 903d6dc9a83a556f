-- The custom CSRs of a set.
CREATE INDEX custom_csrs_of_set ON custom_csrs (set_id, id) WHERE set_id IS NOT NULL;
