-- Pre-shared keys: what machines, which have no identity provider, show instead.

CREATE TABLE psks (
  id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  description  text        NOT NULL CONSTRAINT psks_description_check
               CHECK (char_length(description) BETWEEN 1 AND 200 AND description = btrim(description)),
  psk_type     text        NOT NULL CONSTRAINT psks_type_check CHECK (psk_type IN ('server', 'computer')),
  -- SHA-256: a key is 32 random bytes, not a password that somebody chose, so a slow hash would add nothing.
  -- Query: use_psk.
  key_hash     bytea       NOT NULL CONSTRAINT psks_key_hash_key UNIQUE
               CONSTRAINT psks_key_hash_is_sha256 CHECK (octet_length(key_hash) = 32),
  created_by   uuid        REFERENCES oidc_identities (id) ON DELETE SET NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz,
  expires_at   timestamptz,
  revoked_at   timestamptz,
  CONSTRAINT psks_expiry_check CHECK (expires_at > created_at)
);

COMMENT ON TABLE psks IS 'Pre-shared keys, hashed. A revoked one stays, for the record.';

-- Query: list_psks. Also: of the keys that work, two do not look alike to who has to revoke one.
CREATE UNIQUE INDEX psks_description_key ON psks (description) WHERE revoked_at IS NULL;
CREATE INDEX psks_created_by_idx ON psks (created_by) WHERE created_by IS NOT NULL;

-- A key that leaked was revoked for good.
CREATE FUNCTION keep_psks_revoked() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a revoked key stays revoked, and a key does not change'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'psks_revoked';
END
$$;

COMMENT ON FUNCTION keep_psks_revoked() IS 'Trigger: refuses to make a revoked key work again, and to put another key into a row.';

CREATE TRIGGER psks_revoked BEFORE UPDATE ON psks
FOR EACH ROW WHEN (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at OR NEW.key_hash <> OLD.key_hash)
EXECUTE FUNCTION keep_psks_revoked();
