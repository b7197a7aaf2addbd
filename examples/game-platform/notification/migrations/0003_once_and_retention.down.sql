DROP INDEX notifications_retention_idx;
DROP INDEX notifications_event_key;
ALTER TABLE notifications DROP COLUMN event_id;
