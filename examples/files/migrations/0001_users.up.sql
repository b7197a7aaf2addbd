-- Users: who owns files, and to whom they are shared.

CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION touch_updated_at() IS 'Trigger: sets updated_at on every update.';

CREATE TABLE users (
  id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  username   text        NOT NULL CONSTRAINT users_username_check CHECK (username ~ '^[A-Za-z][A-Za-z0-9._-]{0,63}$'),
  email      text        NOT NULL CONSTRAINT users_email_check
             CHECK (char_length(email) <= 254 AND email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
  password   text        NOT NULL CONSTRAINT users_password_is_phc
             CHECK (char_length(password) <= 512 AND password ~
               '^\$(argon2id|scrypt|pbkdf2-sha256|pbkdf2-sha512)(\$v=[0-9]+)?\$[a-z]+=[0-9]+(,[a-z]+=[A-Za-z0-9+/.-]+)*\$[A-Za-z0-9+/.-]{11,}\$[A-Za-z0-9+/]{22,}$'),
  role       text        NOT NULL DEFAULT 'viewer' CONSTRAINT users_role_check CHECK (role IN ('admin', 'editor', 'viewer')),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN users.password IS 'The hash, as a PHC string: $argon2id$v=19$m=…,t=…,p=…$salt$hash. A plain password cannot be stored by mistake.';

-- Query: find_user_for_login. Unique without regard to case: Ada is ada.
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TRIGGER users_touch BEFORE UPDATE ON users
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
