DROP TABLE channel_members;
DROP FUNCTION keep_direct_channels_private();
DROP TABLE chat_channels;
