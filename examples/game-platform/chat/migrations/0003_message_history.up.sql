-- Message history: what a message said before each edit, and before it was
-- deleted. Written by a trigger, as the owner; the application can read it and
-- nothing else, so an edit cannot be made to look as if it never happened.

ALTER TABLE chat_messages
  ADD COLUMN revision integer NOT NULL DEFAULT 0,
  -- The text of a deleted message is in the history alone: a query that forgets
  -- to ask for deleted_at shows nothing that was taken back.
  ADD CONSTRAINT chat_messages_body_until_deleted CHECK ((body IS NULL) = (deleted_at IS NOT NULL));

CREATE TABLE message_history (
  message_id bigint      NOT NULL REFERENCES chat_messages (id) ON DELETE CASCADE,
  revision   integer     NOT NULL CONSTRAINT message_history_revision_check CHECK (revision >= 0),
  body       text        NOT NULL,
  change     text        NOT NULL CONSTRAINT message_history_change_check CHECK (change IN ('edited', 'deleted')),
  changed_by uuid,
  changed_at timestamptz NOT NULL DEFAULT now(),
  -- Query: read_history.
  PRIMARY KEY (message_id, revision)
);

COMMENT ON TABLE message_history IS 'The text that each change replaced, oldest first. Append-only: written by the trigger on chat_messages.';

REVOKE INSERT, UPDATE, DELETE ON message_history FROM chat_db_app;
-- Deleting is an update (delete_message); a row that vanished would take its history along.
REVOKE DELETE ON chat_messages FROM chat_db_app;

CREATE FUNCTION revise_message() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  -- The author may become null (erased), never another person.
  IF NEW.channel_id <> OLD.channel_id OR NEW.seq <> OLD.seq OR NEW.sent_at <> OLD.sent_at
     OR (NEW.author_id IS NOT NULL AND NEW.author_id IS DISTINCT FROM OLD.author_id) THEN
    RAISE EXCEPTION 'channel, number, time and author of a message do not change'
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF OLD.deleted_at IS NOT NULL AND (NEW.deleted_at IS NULL OR NEW.body IS NOT NULL) THEN
    RAISE EXCEPTION 'a deleted message does not come back'
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  NEW.revision := OLD.revision;
  IF NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL THEN
    NEW.body := NULL;
    NEW.revision := OLD.revision + 1;
  ELSIF NEW.body IS DISTINCT FROM OLD.body THEN
    NEW.edited_at := now();
    NEW.revision := OLD.revision + 1;
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION revise_message() IS 'Trigger: counts revisions, clears the text of a deleted message, refuses changes of what is fixed.';

CREATE TRIGGER chat_messages_revise BEFORE UPDATE ON chat_messages
FOR EACH ROW EXECUTE FUNCTION revise_message();

CREATE FUNCTION keep_message_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  INSERT INTO public.message_history (message_id, revision, body, change, changed_by)
  VALUES (OLD.id, OLD.revision, OLD.body,
          CASE WHEN NEW.deleted_at IS NULL THEN 'edited' ELSE 'deleted' END,
          CASE WHEN NEW.deleted_at IS NULL THEN OLD.author_id ELSE NEW.deleted_by END);
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION keep_message_history() IS 'Trigger: stores the replaced text. Runs as the owner, since the application cannot write the history.';

REVOKE EXECUTE ON FUNCTION keep_message_history() FROM PUBLIC;

CREATE TRIGGER chat_messages_keep_history AFTER UPDATE ON chat_messages
FOR EACH ROW WHEN (OLD.revision <> NEW.revision) EXECUTE FUNCTION keep_message_history();
