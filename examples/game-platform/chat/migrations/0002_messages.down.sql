DROP TABLE chat_messages;
DROP FUNCTION number_message();
