DROP TABLE auth_tokens;
DROP TABLE token_families;
