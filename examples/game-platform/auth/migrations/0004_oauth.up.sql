-- Logging in by another provider: the state of a login under way, and which
-- account of the provider belongs to which of ours.

CREATE TABLE oauth_states (
  state_hash      bytea       PRIMARY KEY
                  CONSTRAINT oauth_states_state_is_sha256 CHECK (octet_length(state_hash) = 32),
  browser_hash    bytea       NOT NULL
                  CONSTRAINT oauth_states_browser_is_sha256 CHECK (octet_length(browser_hash) = 32),
  provider        text        NOT NULL CONSTRAINT oauth_states_provider_check CHECK (provider ~ '^[a-z0-9_-]{1,32}$'),
  code_verifier   text        NOT NULL
                  CONSTRAINT oauth_states_verifier_is_pkce CHECK (code_verifier ~ '^[A-Za-z0-9._~-]{43,128}$'),
  redirect_uri    text        NOT NULL CONSTRAINT oauth_states_redirect_check
                  CHECK (char_length(redirect_uri) <= 2048 AND redirect_uri ~ '^(https://|http://(localhost|127\.0\.0\.1)[:/])'),
  link_to_user_id uuid        REFERENCES accounts (id) ON DELETE CASCADE,
  created_at      timestamptz NOT NULL DEFAULT now(),
  expires_at      timestamptz NOT NULL DEFAULT now() + interval '10 minutes',
  CONSTRAINT oauth_states_lifetime_check
    CHECK (expires_at > created_at AND expires_at <= created_at + interval '1 hour')
);

COMMENT ON TABLE oauth_states IS 'A login under way at a provider. Used once: the callback deletes the row and gets the verifier in the same statement, so a second callback finds nothing.';
COMMENT ON COLUMN oauth_states.state_hash IS 'SHA-256 of the state parameter.';
COMMENT ON COLUMN oauth_states.browser_hash IS 'SHA-256 of a cookie: the callback must come from the browser that began the login.';
COMMENT ON COLUMN oauth_states.code_verifier IS 'The PKCE verifier. Needed in the clear, for minutes; worth nothing without the authorization code.';
COMMENT ON COLUMN oauth_states.link_to_user_id IS 'Set when a logged-in person links another provider, null for a login.';

-- Query: purge_expired_oauth_states.
CREATE INDEX oauth_states_expiry_idx ON oauth_states (expires_at);
-- The foreign key.
CREATE INDEX oauth_states_link_idx ON oauth_states (link_to_user_id) WHERE link_to_user_id IS NOT NULL;

CREATE TABLE oauth_identities (
  id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id       uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  provider      text        NOT NULL CONSTRAINT oauth_identities_provider_check CHECK (provider ~ '^[a-z0-9_-]{1,32}$'),
  subject       text        NOT NULL CONSTRAINT oauth_identities_subject_check CHECK (char_length(subject) BETWEEN 1 AND 255),
  linked_at     timestamptz NOT NULL DEFAULT now(),
  last_login_at timestamptz,
  -- Query: find_account_by_oauth_identity.
  CONSTRAINT oauth_identities_subject_key UNIQUE (provider, subject),
  -- Query: list_oauth_identities.
  CONSTRAINT oauth_identities_user_provider_key UNIQUE (user_id, provider)
);

COMMENT ON TABLE oauth_identities IS 'Accounts at other providers that log in to an account here. The subject is the provider''s own stable id; an e-mail address can change hands.';
