-- Read receipts: one mark per member, at the newest message read. One row to
-- move instead of one row for every message and reader; whoever has read
-- message 7 has read those before it.

CREATE TABLE read_receipts (
  channel_id    uuid        NOT NULL,
  user_id       uuid        NOT NULL,
  last_read_seq bigint      NOT NULL,
  read_at       timestamptz NOT NULL DEFAULT now(),
  -- Queries: who_has_read, list_my_channels.
  PRIMARY KEY (channel_id, user_id),
  CONSTRAINT read_receipts_member_fkey FOREIGN KEY (channel_id, user_id)
    REFERENCES channel_members (channel_id, user_id) ON DELETE CASCADE,
  -- A mark stands at a message that exists.
  CONSTRAINT read_receipts_message_fkey FOREIGN KEY (channel_id, last_read_seq)
    REFERENCES chat_messages (channel_id, seq) ON DELETE CASCADE
) WITH (fillfactor = 70);

COMMENT ON TABLE read_receipts IS 'How far each member has read. No row: nothing yet. The mark only moves forward.';
COMMENT ON COLUMN read_receipts.read_at IS 'When the mark came to this message.';

CREATE FUNCTION keep_receipts_moving_forward() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.last_read_seq < OLD.last_read_seq THEN
    RAISE EXCEPTION 'a read receipt does not move back'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'read_receipts_forward';
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION keep_receipts_moving_forward() IS 'Trigger: refuses to mark a read message unread.';

CREATE TRIGGER read_receipts_forward BEFORE UPDATE ON read_receipts
FOR EACH ROW EXECUTE FUNCTION keep_receipts_moving_forward();
