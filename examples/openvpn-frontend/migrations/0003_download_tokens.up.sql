-- Download tokens: one download of one VPN profile, soon, by whoever has the link.

CREATE TABLE download_tokens (
  id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  -- Query: consume_token.
  token_hash  bytea       NOT NULL CONSTRAINT download_tokens_hash_key UNIQUE
              CONSTRAINT download_tokens_hash_is_sha256 CHECK (octet_length(token_hash) = 32),
  -- For whom: a person or a machine.
  identity_id uuid        REFERENCES oidc_identities (id) ON DELETE CASCADE,
  psk_id      uuid        REFERENCES psks (id) ON DELETE CASCADE,
  profile     text        NOT NULL CONSTRAINT download_tokens_profile_check CHECK (profile ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
  created_at  timestamptz NOT NULL DEFAULT now(),
  expires_at  timestamptz NOT NULL DEFAULT now() + interval '5 minutes',
  used_at     timestamptz,
  CONSTRAINT download_tokens_for_one CHECK (num_nonnulls(identity_id, psk_id) = 1),
  CONSTRAINT download_tokens_expiry_check CHECK (expires_at > created_at AND expires_at <= created_at + interval '1 day'),
  CONSTRAINT download_tokens_used_check CHECK (used_at BETWEEN created_at AND expires_at)
);

COMMENT ON TABLE download_tokens IS 'Links to download a profile once, as SHA-256.';

-- The foreign keys.
CREATE INDEX download_tokens_identity_idx ON download_tokens (identity_id) WHERE identity_id IS NOT NULL;
CREATE INDEX download_tokens_psk_idx ON download_tokens (psk_id) WHERE psk_id IS NOT NULL;
-- Query: purge_expired_tokens.
CREATE INDEX download_tokens_expiry_idx ON download_tokens (expires_at);

CREATE FUNCTION keep_tokens_used() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a download token is used once'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'download_tokens_used_once';
END
$$;

COMMENT ON FUNCTION keep_tokens_used() IS 'Trigger: refuses to change a token that was used.';

CREATE TRIGGER download_tokens_used_once BEFORE UPDATE ON download_tokens
FOR EACH ROW WHEN (OLD.used_at IS NOT NULL) EXECUTE FUNCTION keep_tokens_used();
