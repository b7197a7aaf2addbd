-- What chat_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: group_without_a_name
-- refused: 23514 chat_channels_direct_check
INSERT INTO chat_channels (kind) VALUES ('group');

-- name: unknown_kind_of_channel
-- refused: 23514 chat_channels_kind_check
INSERT INTO chat_channels (kind, name) VALUES ('secret', 'x');

-- name: direct_channel_with_oneself
-- refused: 23514 chat_channels_direct_check
INSERT INTO chat_channels (kind, direct_low, direct_high)
VALUES ('direct', '6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001');

-- name: second_direct_channel_of_a_pair
-- refused: 23505 chat_channels_direct_key
INSERT INTO chat_channels (kind, direct_low, direct_high)
VALUES ('direct', '6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002');

-- name: third_person_in_a_direct_channel
-- refused: 23514 channel_members_direct_pair
INSERT INTO channel_members (channel_id, user_id)
SELECT id, '6f1c0c9e-0000-4000-8000-000000000003' FROM chat_channels
WHERE direct_low = '6f1c0c9e-0000-4000-8000-000000000001';

-- name: message_by_someone_outside
-- refused: 23514 chat_messages_author_is_member
INSERT INTO chat_messages (channel_id, author_id, body)
VALUES ('c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000009', 'let me in');

-- name: message_without_an_author
-- refused: 23514 chat_messages_author_is_member
INSERT INTO chat_messages (channel_id, body) VALUES ('c4a70000-0000-4000-8000-000000000001', 'who am I');

-- name: empty_message
-- refused: 23514 chat_messages_body_check
INSERT INTO chat_messages (channel_id, author_id, body)
VALUES ('c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', '');

-- name: message_too_long
-- refused: 23514 chat_messages_body_check
INSERT INTO chat_messages (channel_id, author_id, body)
VALUES ('c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', repeat('x', 4001));

-- name: reply_to_a_message_that_does_not_exist
-- refused: 23514 chat_messages_reply_check
INSERT INTO chat_messages (channel_id, author_id, body, reply_to_seq)
VALUES ('c4a70000-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 'what?', 999);

-- name: words_put_into_the_mouth_of_another
-- refused: 55000
UPDATE chat_messages SET author_id = '6f1c0c9e-0000-4000-8000-000000000002'
WHERE channel_id = 'c4a70000-0000-4000-8000-000000000001' AND seq = 1;

-- name: deleted_message_comes_back
-- refused: 55000
UPDATE chat_messages SET deleted_at = NULL, body = 'here again'
WHERE channel_id = 'c4a70000-0000-4000-8000-000000000001' AND seq = 2;

-- name: history_rewritten
-- refused: 42501
UPDATE message_history SET body = 'I never said that';

-- name: history_forged
-- refused: 42501
INSERT INTO message_history (message_id, revision, body, change) SELECT id, 7, 'x', 'edited' FROM chat_messages LIMIT 1;

-- name: history_deleted
-- refused: 42501
DELETE FROM message_history;

-- name: message_removed_without_a_trace
-- refused: 42501
DELETE FROM chat_messages;

-- name: receipt_for_a_message_that_does_not_exist
-- refused: 23503 read_receipts_message_fkey
UPDATE read_receipts SET last_read_seq = 999 WHERE user_id = '6f1c0c9e-0000-4000-8000-000000000001';

-- name: receipt_moved_back
-- refused: 23514 read_receipts_forward
UPDATE read_receipts SET last_read_seq = 1 WHERE user_id = '6f1c0c9e-0000-4000-8000-000000000001';

-- name: the_application_changes_the_schema
-- refused: 42501
ALTER TABLE chat_messages DISABLE TRIGGER ALL;
