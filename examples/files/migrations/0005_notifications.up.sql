-- Notifications to users about their files.

CREATE TABLE notifications (
  id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id    bigint      NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  message    text        NOT NULL CONSTRAINT notifications_message_check CHECK (char_length(message) BETWEEN 1 AND 2000),
  status     text        NOT NULL DEFAULT 'pending' CONSTRAINT notifications_status_check
             CHECK (status IN ('pending', 'sent', 'failed')),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Queries: fetch_pending, mark_notification. Small: what was sent leaves it.
CREATE INDEX notifications_pending_idx ON notifications (id) WHERE status = 'pending';
-- Query: list_notifications; and the foreign key.
CREATE INDEX notifications_user_idx ON notifications (user_id, id DESC);

CREATE TRIGGER notifications_touch BEFORE UPDATE ON notifications
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
