-- Messages that wait for the hub. AUTOINCREMENT: a number is never given twice.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    module TEXT NOT NULL,
    output TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    body BLOB NOT NULL,
    properties TEXT NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;

-- Inputs that were answered.
CREATE TABLE consumed (
    name TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Small values of the agent.
CREATE TABLE state (
    key TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The one row about the store itself.
CREATE TABLE life (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0
) STRICT;
