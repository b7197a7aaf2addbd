-- Deleted messages have no text outside the history: without it they keep a mark.
DROP TRIGGER chat_messages_keep_history ON chat_messages;
DROP TRIGGER chat_messages_revise ON chat_messages;
DROP FUNCTION keep_message_history();
DROP FUNCTION revise_message();
DROP TABLE message_history;
ALTER TABLE chat_messages
  DROP CONSTRAINT chat_messages_body_until_deleted,
  DROP COLUMN revision;
GRANT DELETE ON chat_messages TO chat_db_app;
