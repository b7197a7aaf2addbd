-- The queries of the chat service, in an order in which they can be run on an
-- empty chat_db as the application's role. Above each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values
--
-- The first five are a whole conversation: create a channel, add two members,
-- write a message, read it back with author and time.

-- name: create_channel
-- with: 'c4a70000-0000-4000-8000-000000000001', 'lobby', '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO chat_channels (id, kind, name, created_by) VALUES ($1, 'group', $2, $3) RETURNING id, created_at;

-- name: add_member
-- index: channel_members_pkey
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 'owner', 'Ada'
-- rows: 1
INSERT INTO channel_members (channel_id, user_id, role, nickname) VALUES ($1, $2, $3, $4)
ON CONFLICT (channel_id, user_id) DO UPDATE SET left_at = NULL, joined_at = now()
WHERE channel_members.left_at IS NOT NULL;

-- name: add_member
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 'member', 'Grace'
-- rows: 1
INSERT INTO channel_members (channel_id, user_id, role, nickname) VALUES ($1, $2, $3, $4)
ON CONFLICT (channel_id, user_id) DO UPDATE SET left_at = NULL, joined_at = now()
WHERE channel_members.left_at IS NOT NULL;

-- name: send_message
-- index: chat_messages_client_token_key
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 'Hello, is anyone up for a match?', NULL, 'd0000000-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO chat_messages (channel_id, author_id, body, reply_to_seq, client_token) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (channel_id, author_id, client_token) DO UPDATE SET client_token = excluded.client_token
RETURNING id, seq, sent_at;

-- name: read_channel
-- index: chat_messages_channel_seq_key
-- with: 'c4a70000-0000-4000-8000-000000000001'
-- rows: 1
SELECT m.seq, m.author_id, coalesce(a.nickname, m.author_id::text) AS author, m.sent_at, m.body, m.edited_at, m.deleted_at
FROM chat_messages m
LEFT JOIN channel_members a ON a.channel_id = m.channel_id AND a.user_id = m.author_id
WHERE m.channel_id = $1
ORDER BY m.seq DESC LIMIT 50;

-- The reply was lost and the client sends again: the same message comes back.
-- name: send_message
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 'Hello, is anyone up for a match?', NULL, 'd0000000-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO chat_messages (channel_id, author_id, body, reply_to_seq, client_token) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (channel_id, author_id, client_token) DO UPDATE SET client_token = excluded.client_token
RETURNING id, seq, sent_at;

-- name: send_message
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 'Yes, give me a minut', 1, 'd0000000-0000-4000-8000-000000000002'
-- rows: 1
INSERT INTO chat_messages (channel_id, author_id, body, reply_to_seq, client_token) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (channel_id, author_id, client_token) DO UPDATE SET client_token = excluded.client_token
RETURNING id, seq, sent_at;

-- name: read_older
-- index: chat_messages_channel_seq_key
-- with: 'c4a70000-0000-4000-8000-000000000001', 3
-- rows: 2
SELECT seq, author_id, sent_at, body, edited_at, deleted_at
FROM chat_messages WHERE channel_id = $1 AND seq < $2
ORDER BY seq DESC LIMIT 50;

-- name: read_newer
-- index: chat_messages_channel_seq_key
-- with: 'c4a70000-0000-4000-8000-000000000001', 0
-- rows: 2
SELECT seq, author_id, sent_at, body, edited_at, deleted_at
FROM chat_messages WHERE channel_id = $1 AND seq > $2
ORDER BY seq LIMIT 200;

-- name: edit_message
-- index: chat_messages_channel_seq_key
-- with: 'c4a70000-0000-4000-8000-000000000001', 2, '6f1c0c9e-0000-4000-8000-000000000002', 'Yes, give me a minute'
-- rows: 1
UPDATE chat_messages SET body = $4
WHERE channel_id = $1 AND seq = $2 AND author_id = $3 AND deleted_at IS NULL
RETURNING id, revision, edited_at;

-- name: delete_message
-- index: chat_messages_channel_seq_key
-- with: 'c4a70000-0000-4000-8000-000000000001', 2, '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
UPDATE chat_messages m SET deleted_at = now(), deleted_by = $3
WHERE m.channel_id = $1 AND m.seq = $2 AND m.deleted_at IS NULL
  AND (m.author_id = $3 OR EXISTS (
    SELECT FROM channel_members a
    WHERE a.channel_id = $1 AND a.user_id = $3 AND a.role IN ('owner', 'admin') AND a.left_at IS NULL))
RETURNING id, revision;

-- name: read_history
-- index: chat_messages_channel_seq_key, message_history_pkey
-- with: 'c4a70000-0000-4000-8000-000000000001', 2
-- rows: 2
SELECT h.revision, h.change, h.changed_by, h.changed_at, h.body
FROM chat_messages m JOIN message_history h ON h.message_id = m.id
WHERE m.channel_id = $1 AND m.seq = $2
ORDER BY h.revision;

-- name: mark_read
-- index: read_receipts_pkey
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 1
-- rows: 1
INSERT INTO read_receipts AS r (channel_id, user_id, last_read_seq) VALUES ($1, $2, $3)
ON CONFLICT (channel_id, user_id) DO UPDATE SET last_read_seq = excluded.last_read_seq, read_at = now()
WHERE excluded.last_read_seq > r.last_read_seq;

-- name: mark_read
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 2
-- rows: 1
INSERT INTO read_receipts AS r (channel_id, user_id, last_read_seq) VALUES ($1, $2, $3)
ON CONFLICT (channel_id, user_id) DO UPDATE SET last_read_seq = excluded.last_read_seq, read_at = now()
WHERE excluded.last_read_seq > r.last_read_seq;

-- An older mark that arrives late changes nothing.
-- name: mark_read
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 1
-- rows: 0
INSERT INTO read_receipts AS r (channel_id, user_id, last_read_seq) VALUES ($1, $2, $3)
ON CONFLICT (channel_id, user_id) DO UPDATE SET last_read_seq = excluded.last_read_seq, read_at = now()
WHERE excluded.last_read_seq > r.last_read_seq;

-- name: who_has_read
-- index: read_receipts_pkey
-- with: 'c4a70000-0000-4000-8000-000000000001', 1
-- rows: 2
SELECT user_id, read_at FROM read_receipts WHERE channel_id = $1 AND last_read_seq >= $2;

-- The unread count is a subtraction, no message is counted.
-- name: list_my_channels
-- index: channel_members_user_idx, chat_channels_pkey, read_receipts_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
SELECT c.id, c.kind, c.name, c.last_message_at, c.last_seq - coalesce(r.last_read_seq, 0) AS unread
FROM channel_members m
JOIN chat_channels c ON c.id = m.channel_id
LEFT JOIN read_receipts r ON r.channel_id = m.channel_id AND r.user_id = m.user_id
WHERE m.user_id = $1 AND m.left_at IS NULL AND c.archived_at IS NULL
ORDER BY c.last_message_at DESC NULLS LAST;

-- name: list_members
-- index: channel_members_pkey
-- with: 'c4a70000-0000-4000-8000-000000000001'
-- rows: 2
SELECT user_id, role, nickname, joined_at, muted_until
FROM channel_members WHERE channel_id = $1 AND left_at IS NULL;

-- Then add_member for both.
-- name: open_direct_channel
-- index: chat_channels_direct_key
-- with: '6f1c0c9e-0000-4000-8000-000000000002', '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO chat_channels (kind, direct_low, direct_high, created_by)
VALUES ('direct', least($1::uuid, $2::uuid), greatest($1::uuid, $2::uuid), $1::uuid)
ON CONFLICT (direct_low, direct_high) DO UPDATE SET archived_at = NULL
RETURNING id;

-- name: create_tournament_channel
-- with: 'a0000000-0000-4000-8000-000000000001', 'Winter cup', '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO chat_channels (kind, name, tournament_id, created_by) VALUES ('tournament', $2, $1, $3) RETURNING id;

-- name: find_tournament_channel
-- index: chat_channels_tournament_key
-- with: 'a0000000-0000-4000-8000-000000000001'
-- rows: 1
SELECT id, name FROM chat_channels WHERE tournament_id = $1;

-- name: leave_channel
-- index: channel_members_pkey
-- with: 'c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
UPDATE channel_members SET left_at = now() WHERE channel_id = $1 AND user_id = $2 AND left_at IS NULL;

-- name: erase_author
-- with: '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
SELECT erase_author($1) AS erased_messages;
