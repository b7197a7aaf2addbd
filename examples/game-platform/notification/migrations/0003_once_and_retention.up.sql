-- Services deliver events at least once: the same event makes one notification.
ALTER TABLE notifications ADD COLUMN event_id uuid;

COMMENT ON COLUMN notifications.event_id IS 'The event of the sending service. One event may notify many people, each once.';

-- Query: notify. Rows from before have no event, and null never collides.
CREATE UNIQUE INDEX notifications_event_key ON notifications (event_id, user_id);
-- Query: purge_old_read.
CREATE INDEX notifications_retention_idx ON notifications (created_at) WHERE read_at IS NOT NULL;
