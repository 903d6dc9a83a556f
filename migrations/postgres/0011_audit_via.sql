-- How somebody came: api or cli. Entries of versions that do not know it have none; who and origin tell then.
ALTER TABLE audit ADD COLUMN via TEXT;
