CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE users (
    id         TEXT PRIMARY KEY NOT NULL,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE rooms (
    id             INTEGER PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL UNIQUE,
    kind           TEXT NOT NULL CHECK (kind IN ('direct', 'group', 'public')),
    direct_key     TEXT UNIQUE,
    head_seq       BIGINT NOT NULL DEFAULT 0,
    created_at     BIGINT NOT NULL,
    last_active_at BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX rooms_last_active_at ON rooms (last_active_at);

CREATE TABLE members (
    room_id       BIGINT NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    user_id       TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role          TEXT NOT NULL CHECK (role IN ('member', 'reader')),
    last_read_seq BIGINT NOT NULL DEFAULT 0,
    joined_at     BIGINT NOT NULL,
    PRIMARY KEY (room_id, user_id)
) WITHOUT ROWID;
CREATE INDEX members_user_id ON members (user_id);

CREATE TABLE contacts (
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    contact_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    room_id    BIGINT NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, contact_id)
) WITHOUT ROWID;

-- Rows are only appended; the index by room and seq is the order that counts. No foreign key to
-- rooms: it would cost a look-up for every message, and the server never removes a room.
CREATE TABLE messages (
    id         INTEGER PRIMARY KEY NOT NULL,
    room_id    BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    sender     TEXT,
    client     TEXT,
    conn_info  TEXT,
    chan_info  TEXT,
    data       TEXT NOT NULL,
    tags       TEXT,
    client_key TEXT,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX messages_room_seq ON messages (room_id, seq);
CREATE UNIQUE INDEX messages_client_key
    ON messages (room_id, client_key, (sender IS NULL), coalesce(sender, ''))
    WHERE client_key IS NOT NULL;
