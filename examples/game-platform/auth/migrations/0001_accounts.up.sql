-- User credentials: who can log in, and with which password.
-- The public profile of a person lives in the user service, under the same id.

CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION touch_updated_at() IS 'Trigger: sets updated_at on every update.';

CREATE TABLE accounts (
  id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  email             text        NOT NULL
                    CONSTRAINT accounts_email_check
                    CHECK (char_length(email) <= 254 AND email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
  email_verified_at timestamptz,
  status            text        NOT NULL DEFAULT 'active'
                    CONSTRAINT accounts_status_check CHECK (status IN ('active', 'suspended')),
  created_at        timestamptz NOT NULL DEFAULT now(),
  updated_at        timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE accounts IS 'One row per person who can log in. The id is the user id that every other service knows.';
COMMENT ON COLUMN accounts.email IS 'The login name, kept as it was typed; unique without regard to case.';

-- Query: find_account_for_login. Also makes the address unique.
CREATE UNIQUE INDEX accounts_email_key ON accounts (lower(email));

CREATE TRIGGER accounts_touch BEFORE UPDATE ON accounts
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- Apart from accounts: an account that logs in by OAuth only has no password,
-- and a query that reads accounts never carries a hash along.
CREATE TABLE password_credentials (
  user_id         uuid        PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
  password_hash   text        NOT NULL
                  CONSTRAINT password_credentials_hash_is_phc
                  CHECK (char_length(password_hash) <= 512 AND password_hash ~
                    '^\$(argon2id|scrypt|pbkdf2-sha256|pbkdf2-sha512)(\$v=[0-9]+)?\$[a-z]+=[0-9]+(,[a-z]+=[A-Za-z0-9+/.-]+)*\$[A-Za-z0-9+/.-]{11,}\$[A-Za-z0-9+/]{22,}$'),
  changed_at      timestamptz NOT NULL DEFAULT now(),
  failed_attempts integer     NOT NULL DEFAULT 0
                  CONSTRAINT password_credentials_failed_attempts_check CHECK (failed_attempts >= 0),
  locked_until    timestamptz
);

COMMENT ON TABLE password_credentials IS 'The password of an account, as a salted hash. A plain password cannot be stored by mistake: the check refuses it.';
COMMENT ON COLUMN password_credentials.password_hash IS 'PHC string: $argon2id$v=19$m=…,t=…,p=…$salt$hash. The other names exist for imported accounts, to be rehashed at the next login.';
COMMENT ON COLUMN password_credentials.locked_until IS 'Logins are refused until then; set after too many failed attempts.';
