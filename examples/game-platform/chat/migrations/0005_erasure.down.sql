DROP FUNCTION erase_author(uuid);
DROP INDEX chat_messages_author_idx;
