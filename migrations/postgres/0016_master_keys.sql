-- The processes that seal, and which master keys each has. A row outlives its process by an hour: until then it tells a worker that ended
-- from one of a version that reports nothing.
CREATE TABLE key_holders (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- is part of the names of the process' workers in the job queue
    name            TEXT COLLATE "C" NOT NULL,              -- for people
    master_key_ids  TEXT NOT NULL,                          -- with commas between
    sealing_id      TEXT NOT NULL,                          -- the one that it takes for the current one
    live_until      BIGINT NOT NULL                         -- by the database's clock
);

-- Master keys that were forgotten: a file of one that still lies around is not taken for a new one.
CREATE TABLE retired_master_keys (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    retired_at  BIGINT NOT NULL
);
