-- Chat messages. Within a channel they are numbered 1, 2, 3, … (seq). The number
-- is taken under a lock on the channel's row, so messages become visible in the
-- order of their numbers: a reader who has seen 7 will never meet a new 6, which
-- a plain sequence or a timestamp does not promise. Reading on, unread counts and
-- read receipts rest on that.

CREATE TABLE chat_messages (
  -- An identity, not a random UUID: messages are written at the end of the
  -- index, and the table is the largest by far.
  id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  channel_id   uuid        NOT NULL REFERENCES chat_channels (id) ON DELETE CASCADE,
  seq          bigint      NOT NULL,
  author_id    uuid,
  body         text        CONSTRAINT chat_messages_body_check CHECK (char_length(body) BETWEEN 1 AND 4000),
  reply_to_seq bigint,
  client_token uuid,
  sent_at      timestamptz NOT NULL DEFAULT now(),
  edited_at    timestamptz,
  deleted_at   timestamptz,
  deleted_by   uuid,
  -- Queries: read_channel, read_older, read_newer.
  CONSTRAINT chat_messages_channel_seq_key UNIQUE (channel_id, seq),
  -- Query: send_message. Sending twice after a lost reply makes one message.
  CONSTRAINT chat_messages_client_token_key UNIQUE (channel_id, author_id, client_token),
  -- Only members write; when a person is erased the message stays, without an author.
  CONSTRAINT chat_messages_author_fkey FOREIGN KEY (channel_id, author_id)
    REFERENCES channel_members (channel_id, user_id) ON DELETE SET NULL (author_id),
  CONSTRAINT chat_messages_reply_fkey FOREIGN KEY (channel_id, reply_to_seq)
    REFERENCES chat_messages (channel_id, seq) ON DELETE SET NULL (reply_to_seq),
  CONSTRAINT chat_messages_reply_check CHECK (reply_to_seq < seq),
  CONSTRAINT chat_messages_deleted_check CHECK (deleted_by IS NULL OR deleted_at IS NOT NULL)
);

COMMENT ON TABLE chat_messages IS 'Messages, numbered within their channel. Deleting is soft: the row stays as a mark.';
COMMENT ON COLUMN chat_messages.client_token IS 'Chosen by the sending client, once for each message it composes.';

-- The foreign key of replies; few messages are one.
CREATE INDEX chat_messages_reply_idx ON chat_messages (channel_id, reply_to_seq) WHERE reply_to_seq IS NOT NULL;

CREATE FUNCTION number_message() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  writer channel_members;
BEGIN
  SELECT * INTO writer FROM channel_members m
  WHERE m.channel_id = NEW.channel_id AND m.user_id = NEW.author_id AND m.left_at IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'only a member can write to a channel'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'chat_messages_author_is_member';
  END IF;
  IF writer.muted_until > now() THEN
    RAISE EXCEPTION 'the member is muted'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'chat_messages_author_is_not_muted';
  END IF;

  PERFORM 1 FROM chat_channels c WHERE c.id = NEW.channel_id AND c.archived_at IS NULL FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the channel is archived'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'chat_messages_channel_is_open';
  END IF;

  -- Sent before: takes no new number, and the unique key on the token settles it.
  SELECT m.seq INTO NEW.seq FROM chat_messages m
  WHERE m.channel_id = NEW.channel_id AND m.author_id = NEW.author_id AND m.client_token = NEW.client_token;
  IF NOT FOUND THEN
    UPDATE chat_channels c SET last_seq = c.last_seq + 1, last_message_at = NEW.sent_at
    WHERE c.id = NEW.channel_id
    RETURNING c.last_seq INTO NEW.seq;
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION number_message() IS 'Trigger: refuses writers who may not write, and gives a message its number within the channel.';

CREATE TRIGGER chat_messages_number BEFORE INSERT ON chat_messages
FOR EACH ROW EXECUTE FUNCTION number_message();
