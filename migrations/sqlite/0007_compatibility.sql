-- The number of the newest migration that a version of csrd must know to work here. A migration that the version before cannot live with
-- raises it to its own number; all others only add, and the version before goes on.
CREATE TABLE compatibility (
    minimum  INTEGER NOT NULL
) STRICT;

INSERT INTO compatibility (minimum) VALUES (0);
