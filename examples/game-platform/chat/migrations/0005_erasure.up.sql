-- The application cannot touch the history, but a person may ask to be erased:
-- this is the one way, and it takes everything the person wrote.

-- Query: erase_author.
CREATE INDEX chat_messages_author_idx ON chat_messages (author_id);

CREATE FUNCTION erase_author(person uuid) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  erased bigint;
BEGIN
  UPDATE public.chat_messages SET deleted_at = now(), deleted_by = person
  WHERE author_id = person AND deleted_at IS NULL;
  DELETE FROM public.message_history h USING public.chat_messages m
  WHERE m.author_id = person AND h.message_id = m.id;
  SELECT count(*) INTO erased FROM public.chat_messages WHERE author_id = person;
  UPDATE public.chat_messages SET deleted_by = NULL WHERE deleted_by = person;
  UPDATE public.message_history SET changed_by = NULL WHERE changed_by = person;
  UPDATE public.chat_channels SET created_by = NULL WHERE created_by = person;
  -- Takes the read receipts along and leaves the messages without an author.
  DELETE FROM public.channel_members WHERE user_id = person;
  RETURN erased;
END
$$;

COMMENT ON FUNCTION erase_author(uuid) IS 'Erases a person: memberships, receipts, and the text of every message with its history. Returns the number of messages.';

REVOKE EXECUTE ON FUNCTION erase_author(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_author(uuid) TO chat_db_app;
