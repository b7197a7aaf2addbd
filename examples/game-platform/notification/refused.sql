-- What notification_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: unknown_kind
-- refused: 23503 notifications_kind_fkey
INSERT INTO notifications (user_id, kind, title) VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'spam', 'Buy now');

-- name: empty_title
-- refused: 23514 notifications_title_check
INSERT INTO notifications (user_id, kind, title) VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'friend_request', '');

-- name: status_that_contradicts_read_at
-- refused: 428C9
INSERT INTO notifications (user_id, kind, title, status)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'friend_request', 'Hello', 'read');

-- name: read_before_it_was_written
-- refused: 23514 notifications_read_check
UPDATE notifications SET read_at = created_at - interval '1 hour'
WHERE user_id = '6f1c0c9e-0000-4000-8000-000000000001';

-- name: data_as_a_list
-- refused: 23514 notifications_data_check
INSERT INTO notifications (user_id, kind, title, data)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'friend_request', 'Hello', '[]');

-- name: one_event_twice
-- refused: 23505 notifications_event_key
INSERT INTO notifications (user_id, kind, title, event_id)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'match_result', 'Again', 'e7e00000-0000-4000-8000-000000000002');

-- name: unknown_channel
-- refused: 23503 notification_preferences_kind_channel_fkey
INSERT INTO notification_preferences (user_id, kind, channel, enabled)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'chat_message', 'fax', true);

-- name: security_alerts_switched_off
-- refused: 23514 notification_preferences_mandatory
INSERT INTO notification_preferences (user_id, kind, channel, enabled)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'security_alert', 'email', false);

-- name: kind_made_up_by_the_application
-- refused: 42501
INSERT INTO notification_kinds (kind, description) VALUES ('spam', 'Spam');

-- name: default_changed_by_the_application
-- refused: 42501
UPDATE notification_defaults SET mandatory = false;

-- name: the_application_changes_the_schema
-- refused: 42501
DROP TABLE notifications;
