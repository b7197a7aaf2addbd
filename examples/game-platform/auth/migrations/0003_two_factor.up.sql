-- Two-factor authentication. The TOTP secret must be read back to check a
-- code, so it cannot be hashed: the service encrypts it, with a key that this
-- database never sees. Backup codes are only compared, so they are hashed.

CREATE TABLE two_factor_secrets (
  id                 uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id            uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  cipher             text        NOT NULL DEFAULT 'aes-256-gcm' CONSTRAINT two_factor_secrets_cipher_check
                     CHECK (cipher IN ('aes-256-gcm', 'chacha20-poly1305', 'xchacha20-poly1305')),
  key_id             text        NOT NULL CONSTRAINT two_factor_secrets_key_id_check
                     CHECK (key_id ~ '^[A-Za-z0-9._:/-]{1,128}$'),
  nonce              bytea       NOT NULL,
  secret_ciphertext  bytea       NOT NULL CONSTRAINT two_factor_secrets_ciphertext_check
                     CHECK (octet_length(secret_ciphertext) BETWEEN 32 AND 256),
  created_at         timestamptz NOT NULL DEFAULT now(),
  confirmed_at       timestamptz,
  last_accepted_step bigint,
  CONSTRAINT two_factor_secrets_nonce_check
    CHECK (octet_length(nonce) = CASE cipher WHEN 'xchacha20-poly1305' THEN 24 ELSE 12 END),
  -- Query: secrets_under_key. A nonce used twice under one key would give the key stream away.
  CONSTRAINT two_factor_secrets_nonce_once UNIQUE (key_id, nonce)
);

COMMENT ON TABLE two_factor_secrets IS 'TOTP secrets, encrypted by the service: ciphertext with its tag, nonce, and which key.';
COMMENT ON COLUMN two_factor_secrets.key_id IS 'Name and version of the key that encrypted the row; a key rotation looks for the old one.';
COMMENT ON COLUMN two_factor_secrets.confirmed_at IS 'Null until the first right code: an enrolment that was never finished locks nobody out.';
COMMENT ON COLUMN two_factor_secrets.last_accepted_step IS 'The time step of the last accepted code: a code that was watched cannot be used again.';

-- Query: find_two_factor_secret. One secret counts per account.
CREATE UNIQUE INDEX two_factor_secrets_confirmed_key ON two_factor_secrets (user_id) WHERE confirmed_at IS NOT NULL;
-- Query: enrol_two_factor. One unfinished enrolment per account: a new one replaces it.
CREATE UNIQUE INDEX two_factor_secrets_pending_key ON two_factor_secrets (user_id) WHERE confirmed_at IS NULL;

CREATE TABLE two_factor_backup_codes (
  id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id    uuid        NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  code_hash  text        NOT NULL
             CONSTRAINT two_factor_backup_codes_hash_is_phc
             CHECK (char_length(code_hash) <= 512 AND code_hash ~
               '^\$(argon2id|scrypt|pbkdf2-sha256|pbkdf2-sha512)(\$v=[0-9]+)?\$[a-z]+=[0-9]+(,[a-z]+=[A-Za-z0-9+/.-]+)*\$[A-Za-z0-9+/.-]{11,}\$[A-Za-z0-9+/]{22,}$'),
  created_at timestamptz NOT NULL DEFAULT now(),
  used_at    timestamptz
);

COMMENT ON TABLE two_factor_backup_codes IS 'Backup codes, hashed like passwords; each works once.';

-- Query: list_unused_backup_codes.
CREATE INDEX two_factor_backup_codes_unused_idx ON two_factor_backup_codes (user_id) WHERE used_at IS NULL;
-- The foreign key, and query: replace_backup_codes.
CREATE INDEX two_factor_backup_codes_user_idx ON two_factor_backup_codes (user_id);
