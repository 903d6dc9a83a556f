-- What is shown of a leaf, where described_at is modified_at. A version before this one leaves them as they are, and changes modified_at.
ALTER TABLE custom_certificates ADD COLUMN not_before INTEGER;
ALTER TABLE custom_certificates ADD COLUMN serial_number TEXT;
ALTER TABLE custom_certificates ADD COLUMN fingerprint_sha256 TEXT;
ALTER TABLE custom_certificates ADD COLUMN described_at INTEGER;
ALTER TABLE custom_certificates ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
