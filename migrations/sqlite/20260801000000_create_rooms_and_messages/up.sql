-- Facts about this database as a whole; 'epoch' is its identity as clients see it.
CREATE TABLE meta (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Everybody who ever published or had a contact; the id is the application's own.
CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;

-- A room is a channel that exists. head_seq is the number of its newest message.
CREATE TABLE rooms (
    id INTEGER PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('direct', 'group', 'public')),
    direct_key TEXT UNIQUE,
    head_seq BIGINT NOT NULL DEFAULT 0 CHECK (head_seq >= 0),
    created_at BIGINT NOT NULL,
    last_active_at BIGINT NOT NULL,
    CHECK ((kind = 'direct') = (direct_key IS NOT NULL))
);

-- A contact list entry of user_id, and the direct room of the two.
CREATE TABLE contacts (
    user_id TEXT NOT NULL REFERENCES users (id),
    contact_id TEXT NOT NULL REFERENCES users (id),
    room_id BIGINT NOT NULL REFERENCES rooms (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, contact_id),
    CHECK (user_id <> contact_id)
) WITHOUT ROWID;

-- Who belongs to a room, and how far each has read. A 'reader' is nobody's member: only a read
-- position in a public room.
CREATE TABLE members (
    room_id BIGINT NOT NULL REFERENCES rooms (id),
    user_id TEXT NOT NULL REFERENCES users (id),
    role TEXT NOT NULL CHECK (role IN ('owner', 'member', 'reader')),
    last_read_seq BIGINT NOT NULL DEFAULT 0 CHECK (last_read_seq >= 0),
    joined_at BIGINT NOT NULL,
    PRIMARY KEY (room_id, user_id)
) WITHOUT ROWID;

CREATE INDEX members_by_user ON members (user_id);

-- The log. No foreign key to rooms: every row is written by the transaction that has just counted
-- it in its room's row.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY NOT NULL,
    room_id BIGINT NOT NULL,
    seq BIGINT NOT NULL CHECK (seq > 0),
    sender TEXT,
    client_id TEXT,
    conn_info TEXT,
    chan_info TEXT,
    data TEXT NOT NULL,
    tags TEXT,
    client_key TEXT,
    created_at BIGINT NOT NULL
);

CREATE UNIQUE INDEX messages_by_room ON messages (room_id, seq);

-- A publish that is repeated with the same key finds its first row here.
CREATE UNIQUE INDEX messages_by_client_key ON messages (room_id, client_key, coalesce(sender, ''))
    WHERE client_key IS NOT NULL;
