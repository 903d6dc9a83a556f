-- How many certificates expire soon is asked for metrics every few seconds.
CREATE INDEX custom_certificates_expiring ON custom_certificates (not_after);
