DROP TABLE password_credentials;
DROP TABLE accounts;
DROP FUNCTION touch_updated_at();
