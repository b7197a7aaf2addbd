-- The queries of the notification service, in an order in which they can be run
-- on an empty notification_db as the application's role. Above each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values

-- name: notify
-- index: notifications_event_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'friend_request', '6f1c0c9e-0000-4000-8000-000000000002', 'Grace wants to be your friend', '', '{"handle": "grace"}', 'e7e00000-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO notifications (user_id, kind, actor_id, title, body, data, event_id) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (event_id, user_id) DO NOTHING
RETURNING id, created_at;

-- The event is delivered again: nothing happens.
-- name: notify
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'friend_request', '6f1c0c9e-0000-4000-8000-000000000002', 'Grace wants to be your friend', '', '{"handle": "grace"}', 'e7e00000-0000-4000-8000-000000000001'
-- rows: 0
INSERT INTO notifications (user_id, kind, actor_id, title, body, data, event_id) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (event_id, user_id) DO NOTHING
RETURNING id, created_at;

-- name: notify
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'match_result', NULL, 'You won 11 to 7', '', '{"match": "aa7c0000-0000-4000-8000-000000000001"}', 'e7e00000-0000-4000-8000-000000000002'
-- rows: 1
INSERT INTO notifications (user_id, kind, actor_id, title, body, data, event_id) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (event_id, user_id) DO NOTHING
RETURNING id, created_at;

-- The newest page: $2 = null; the next: the last id of the page before.
-- name: list_inbox
-- index: notifications_inbox_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000001', NULL
-- rows: 2
SELECT id, kind, actor_id, title, body, data, status, created_at, read_at
FROM notifications
WHERE user_id = $1 AND id < coalesce($2, 9223372036854775807)
ORDER BY id DESC LIMIT 30;

-- name: list_unread
-- index: notifications_unread_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 2
SELECT id, kind, actor_id, title, body, data, created_at
FROM notifications WHERE user_id = $1 AND read_at IS NULL
ORDER BY id DESC LIMIT 30;

-- name: count_unread
-- index: notifications_unread_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT count(*) AS unread FROM notifications WHERE user_id = $1 AND read_at IS NULL;

-- name: mark_read
-- index: notifications_unread_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 1
-- rows: 1
UPDATE notifications SET read_at = now() WHERE id = $2 AND user_id = $1 AND read_at IS NULL;

-- Up to what the person has seen: what arrives meanwhile stays unread.
-- name: mark_all_read
-- index: notifications_unread_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 9223372036854775807
-- rows: 1
UPDATE notifications SET read_at = now() WHERE user_id = $1 AND read_at IS NULL AND id <= $2;

-- name: mark_unread
-- index: notifications_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 1
-- rows: 1
UPDATE notifications SET read_at = NULL WHERE id = $2 AND user_id = $1;

-- name: delete_notification
-- index: notifications_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 1
-- rows: 1
DELETE FROM notifications WHERE id = $2 AND user_id = $1;

-- name: set_preference
-- index: notification_preferences_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'chat_message', 'push', false
-- rows: 1
INSERT INTO notification_preferences (user_id, kind, channel, enabled) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id, kind, channel) DO UPDATE SET enabled = excluded.enabled, updated_at = now();

-- name: get_preferences
-- index: notification_preferences_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 27
SELECT d.kind, d.channel, coalesce(p.enabled, d.enabled) AS enabled, d.mandatory
FROM notification_defaults d
LEFT JOIN notification_preferences p ON p.user_id = $1 AND p.kind = d.kind AND p.channel = d.channel
ORDER BY d.kind, d.channel;

-- Before sending: which channels a notification of this kind goes by.
-- name: channels_for
-- index: notification_preferences_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'chat_message'
-- rows: 1
SELECT d.channel
FROM notification_defaults d
LEFT JOIN notification_preferences p ON p.user_id = $1 AND p.kind = d.kind AND p.channel = d.channel
WHERE d.kind = $2 AND coalesce(p.enabled, d.enabled);

-- name: reset_preferences
-- index: notification_preferences_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
DELETE FROM notification_preferences WHERE user_id = $1;

-- name: purge_old_read
-- index: notifications_retention_idx
-- with: '90 days'
-- rows: 0
DELETE FROM notifications WHERE read_at IS NOT NULL AND created_at < now() - $1::interval;
