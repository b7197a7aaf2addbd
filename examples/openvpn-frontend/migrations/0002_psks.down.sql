DROP TABLE psks;
DROP FUNCTION keep_psks_revoked();
