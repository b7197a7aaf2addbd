DROP TABLE download_tokens;
DROP FUNCTION keep_tokens_used();
