-- User notifications, read and unread.

CREATE TABLE notification_kinds (
  kind        text PRIMARY KEY CONSTRAINT notification_kinds_kind_check CHECK (kind ~ '^[a-z][a-z0-9_]{0,63}$'),
  description text NOT NULL
);

COMMENT ON TABLE notification_kinds IS 'What can be notified. Filled by migrations, read-only for the application: a new kind ships with the code that sends it.';

REVOKE INSERT, UPDATE, DELETE ON notification_kinds FROM notification_db_app;

INSERT INTO notification_kinds (kind, description) VALUES
  ('friend_request',      'Somebody asks to be a friend'),
  ('friend_accepted',     'A friend request was accepted'),
  ('chat_message',        'A message in a direct channel'),
  ('chat_mention',        'Somebody mentioned the person in a channel'),
  ('match_invitation',    'An invitation to a match'),
  ('match_result',        'The result of a match'),
  ('tournament_starting', 'A tournament of the person begins soon'),
  ('tournament_result',   'The result of a tournament'),
  ('security_alert',      'A login from a new device, a changed password');

CREATE TABLE notifications (
  -- An identity, not a random UUID: the inbox is ordered by it, and two
  -- notifications of one moment still have an order to page by.
  id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id    uuid        NOT NULL,
  kind       text        NOT NULL REFERENCES notification_kinds (kind),
  actor_id   uuid,
  title      text        NOT NULL CONSTRAINT notifications_title_check CHECK (char_length(title) BETWEEN 1 AND 200),
  body       text        NOT NULL DEFAULT '' CONSTRAINT notifications_body_check CHECK (char_length(body) <= 2000),
  data       jsonb       NOT NULL DEFAULT '{}' CONSTRAINT notifications_data_check
             CHECK (jsonb_typeof(data) = 'object' AND octet_length(data::text) <= 8192),
  created_at timestamptz NOT NULL DEFAULT now(),
  read_at    timestamptz,
  -- Derived, so that status and time cannot contradict each other.
  status     text        NOT NULL GENERATED ALWAYS AS (CASE WHEN read_at IS NULL THEN 'unread' ELSE 'read' END) STORED,
  CONSTRAINT notifications_read_check CHECK (read_at >= created_at)
);

COMMENT ON TABLE notifications IS 'The inbox of every person. Status is read or unread, and follows read_at.';
COMMENT ON COLUMN notifications.user_id IS 'Whom it is for: a user id of the auth service, in another database.';
COMMENT ON COLUMN notifications.data IS 'What a client needs to open the thing: ids of a channel, a match, a tournament.';

-- Query: list_inbox.
CREATE INDEX notifications_inbox_idx ON notifications (user_id, id DESC);
-- Queries: list_unread, count_unread, mark_all_read. Small: read ones leave it.
CREATE INDEX notifications_unread_idx ON notifications (user_id, id DESC) WHERE read_at IS NULL;
