-- Which certificates their issuers are to be asked about is looked for every few seconds.
CREATE INDEX custom_certificates_ari ON custom_certificates (ari_next_at, id);
