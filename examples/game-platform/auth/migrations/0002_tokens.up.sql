-- Authentication tokens. Only SHA-256 hashes are stored: whoever reads this
-- database, or a backup of it, holds no token that works.

CREATE TABLE token_families (
  id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id       uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  user_agent    text        CONSTRAINT token_families_user_agent_check CHECK (char_length(user_agent) <= 512),
  ip_address    inet,
  created_at    timestamptz NOT NULL DEFAULT now(),
  last_used_at  timestamptz NOT NULL DEFAULT now(),
  expires_at    timestamptz NOT NULL,
  revoked_at    timestamptz,
  revoke_reason text        CONSTRAINT token_families_revoke_reason_check
                CHECK (revoke_reason IN ('logout', 'password_changed', 'token_reused', 'administrator')),
  CONSTRAINT token_families_expiry_check CHECK (expires_at > created_at),
  CONSTRAINT token_families_revoked_with_reason CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL)),
  -- Lets auth_tokens prove that a token and its family belong to one account.
  -- Queries: list_active_logins, revoke_all_logins. Without last_used_at, so
  -- that noting a use changes no index.
  CONSTRAINT token_families_user_key UNIQUE (user_id, id)
);

COMMENT ON TABLE token_families IS 'One login on one device. Every token that is rotated out of that login belongs to the family and dies with it.';

-- Query: purge_expired_logins.
CREATE INDEX token_families_expiry_idx ON token_families (expires_at);

CREATE TABLE auth_tokens (
  id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id     uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  kind        text        NOT NULL CONSTRAINT auth_tokens_kind_check
              CHECK (kind IN ('access', 'refresh', 'email_verification', 'password_reset')),
  token_hash  bytea       NOT NULL CONSTRAINT auth_tokens_hash_is_sha256 CHECK (octet_length(token_hash) = 32),
  family_id   uuid,
  parent_id   uuid        REFERENCES auth_tokens (id) ON DELETE SET NULL,
  issued_at   timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL,
  consumed_at timestamptz,
  revoked_at  timestamptz,
  -- Query: find_token. One lookup for each request that carries a token.
  CONSTRAINT auth_tokens_hash_key UNIQUE (token_hash),
  -- A refresh token is rotated into one successor of each kind at most.
  CONSTRAINT auth_tokens_parent_key UNIQUE (parent_id, kind),
  CONSTRAINT auth_tokens_family_fkey FOREIGN KEY (user_id, family_id)
    REFERENCES token_families (user_id, id) ON DELETE CASCADE,
  CONSTRAINT auth_tokens_login_tokens_have_family CHECK ((kind IN ('access', 'refresh')) = (family_id IS NOT NULL)),
  CONSTRAINT auth_tokens_expiry_check CHECK (expires_at > issued_at),
  CONSTRAINT auth_tokens_access_is_not_consumed CHECK (kind <> 'access' OR consumed_at IS NULL)
);

COMMENT ON TABLE auth_tokens IS 'Tokens as SHA-256 hashes. Refresh, e-mail and reset tokens are used once (consumed_at); a refresh token seen again after that is theft, and its family is revoked.';

-- Guards the rotation (issue_login_token): a login never has two refresh tokens that work.
CREATE UNIQUE INDEX auth_tokens_live_refresh_key ON auth_tokens (family_id)
  WHERE kind = 'refresh' AND consumed_at IS NULL AND revoked_at IS NULL;
-- Query: issue_password_reset. One live link of a kind per account: a new one replaces the old one.
CREATE UNIQUE INDEX auth_tokens_live_link_key ON auth_tokens (user_id, kind)
  WHERE kind IN ('email_verification', 'password_reset') AND consumed_at IS NULL AND revoked_at IS NULL;
-- Query: purge_expired_tokens.
CREATE INDEX auth_tokens_expiry_idx ON auth_tokens (expires_at);
-- Both foreign keys: deleting a login or an account finds its tokens, dead ones too.
CREATE INDEX auth_tokens_owner_idx ON auth_tokens (user_id, family_id);
