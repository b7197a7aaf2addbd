-- Who logs in, by the identity provider, and the sessions that come of it.

CREATE TABLE oidc_identities (
  id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  issuer        text        NOT NULL CONSTRAINT oidc_identities_issuer_check
                CHECK (char_length(issuer) <= 512 AND issuer ~ '^https://[^[:space:]?#]+$'),
  -- Not the e-mail address: OpenID Connect promises that issuer and subject
  -- together are one person for ever, and of the address nothing.
  subject       text        NOT NULL CONSTRAINT oidc_identities_subject_check CHECK (char_length(subject) BETWEEN 1 AND 255),
  email         text        CONSTRAINT oidc_identities_email_check
                CHECK (char_length(email) <= 254 AND email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
  display_name  text        NOT NULL DEFAULT '' CONSTRAINT oidc_identities_display_name_check CHECK (char_length(display_name) <= 200),
  groups        text[]      NOT NULL DEFAULT '{}' CONSTRAINT oidc_identities_groups_check
                CHECK (array_position(groups, NULL) IS NULL AND cardinality(groups) <= 500),
  disabled_at   timestamptz,
  created_at    timestamptz NOT NULL DEFAULT now(),
  last_login_at timestamptz NOT NULL DEFAULT now(),
  -- Query: record_login.
  CONSTRAINT oidc_identities_subject_key UNIQUE (issuer, subject)
);

COMMENT ON TABLE oidc_identities IS 'A person, as the identity provider knows it.';
COMMENT ON COLUMN oidc_identities.groups IS 'The groups claim of the last login.';

-- Query: find_identities_by_email.
CREATE INDEX oidc_identities_email_idx ON oidc_identities (lower(email));

CREATE TABLE user_sessions (
  id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  identity_id  uuid        NOT NULL REFERENCES oidc_identities (id) ON DELETE CASCADE,
  -- The cookie is stored as its SHA-256 only: whoever reads this database, or a backup of it, has no session.
  -- Query: find_session.
  token_hash   bytea       NOT NULL CONSTRAINT user_sessions_token_hash_key UNIQUE
               CONSTRAINT user_sessions_token_hash_is_sha256 CHECK (octet_length(token_hash) = 32),
  data         jsonb       NOT NULL DEFAULT '{}' CONSTRAINT user_sessions_data_check
               CHECK (jsonb_typeof(data) = 'object' AND octet_length(data::text) <= 16384),
  created_at   timestamptz NOT NULL DEFAULT now(),
  last_seen_at timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz NOT NULL,
  CONSTRAINT user_sessions_expiry_check CHECK (expires_at > created_at AND expires_at <= created_at + interval '30 days')
-- last_seen_at is written often and is in no index: room for the new version in the same page.
) WITH (fillfactor = 80);

-- Queries: list_sessions, end_sessions; and the foreign key.
CREATE INDEX user_sessions_identity_idx ON user_sessions (identity_id);
-- Query: purge_expired_sessions.
CREATE INDEX user_sessions_expiry_idx ON user_sessions (expires_at);
