-- A little of everything, so that each query of docs/schema.md finds something.
INSERT INTO users (id, created_at) VALUES ('ann', 1), ('bob', 1);
INSERT INTO rooms (id, name, kind, direct_key, head_seq, created_at, last_active_at) VALUES
    (1, 'lobby', 'public', NULL, 3, 1, 90000000000),
    (2, 'team:red', 'group', NULL, 1, 1, 90000000001),
    (3, 'direct:1', 'direct', '3:annbob', 0, 1, 0),
    (4, 'attic', 'public', NULL, 1, 1, 1);
INSERT INTO members (room_id, user_id, role, last_read_seq, joined_at) VALUES
    (1, 'ann', 'reader', 1, 1), (2, 'ann', 'member', 1, 1), (2, 'bob', 'member', 0, 1),
    (3, 'ann', 'member', 0, 1), (3, 'bob', 'member', 0, 1);
INSERT INTO contacts (user_id, contact_id, room_id, created_at) VALUES ('ann', 'bob', 3, 1), ('bob', 'ann', 3, 1);
INSERT INTO messages (room_id, seq, sender, data, created_at) VALUES
    (1, 1, 'ann', '{"text":"Hello"}', 1), (1, 2, 'bob', '{"text":"hi"}', 90000000000),
    (1, 3, NULL, '{"text":"news"}', 90000000000), (2, 1, 'bob', '{"text":"red"}', 90000000001),
    (4, 1, 'ann', '{"text":"dust"}', 1);
