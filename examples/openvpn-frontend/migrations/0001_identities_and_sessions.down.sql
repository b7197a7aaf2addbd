DROP TABLE user_sessions;
DROP TABLE oidc_identities;
