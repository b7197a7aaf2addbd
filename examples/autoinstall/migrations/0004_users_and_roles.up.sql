-- Who may use the web frontend, and for what. Roles form a hierarchy: a role may
-- do what its parent may, and what is granted to itself.

CREATE TABLE users (
  id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  username      text        NOT NULL CONSTRAINT users_username_check CHECK (username ~ '^[a-z][a-z0-9._-]{0,63}$'),
  password_hash text        NOT NULL CONSTRAINT users_password_hash_is_phc
                CHECK (char_length(password_hash) <= 512 AND password_hash ~
                  '^\$(argon2id|scrypt|pbkdf2-sha256|pbkdf2-sha512)(\$v=[0-9]+)?\$[a-z]+=[0-9]+(,[a-z]+=[A-Za-z0-9+/.-]+)*\$[A-Za-z0-9+/.-]{11,}\$[A-Za-z0-9+/]{22,}$'),
  disabled_at   timestamptz,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  -- Query: find_user_for_login.
  CONSTRAINT users_username_key UNIQUE (username)
);

COMMENT ON COLUMN users.password_hash IS 'PHC string, such as $argon2id$v=19$m=…,t=…,p=…$salt$hash. A plain password cannot be stored by mistake.';

CREATE TRIGGER users_touch BEFORE UPDATE ON users
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE TABLE roles (
  id             uuid     PRIMARY KEY DEFAULT gen_random_uuid(),
  name           text     NOT NULL CONSTRAINT roles_name_key UNIQUE
                 CONSTRAINT roles_name_check CHECK (name ~ '^[a-z][a-z0-9-]{0,63}$'),
  parent_role_id uuid,
  parent_depth   smallint,
  depth          smallint NOT NULL DEFAULT 0,
  CONSTRAINT roles_depth_key UNIQUE (id, depth),
  -- Each role is one deeper than its parent, so no role is its own ancestor:
  -- the check holds whatever is written at the same time, which a trigger that
  -- walks the hierarchy would not promise.
  CONSTRAINT roles_parent_fkey FOREIGN KEY (parent_role_id, parent_depth) REFERENCES roles (id, depth) MATCH FULL,
  CONSTRAINT roles_depth_check CHECK (depth = coalesce(parent_depth + 1, 0)),
  CONSTRAINT roles_depth_limit CHECK (depth BETWEEN 0 AND 15)
);

COMMENT ON TABLE roles IS 'Roles of the web frontend. A role has its parent''s permissions too.';

-- The foreign key: deleting a role finds its children.
CREATE INDEX roles_parent_idx ON roles (parent_role_id);

CREATE TABLE role_permissions (
  role_id    uuid NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
  permission text NOT NULL CONSTRAINT role_permissions_permission_check CHECK (permission ~ '^[a-z]+:[a-z]+$'),
  -- Query: permissions_of_user.
  PRIMARY KEY (role_id, permission)
);

COMMENT ON COLUMN role_permissions.permission IS 'What on what: systems:read.';

CREATE TABLE user_roles (
  user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role_id    uuid        NOT NULL REFERENCES roles (id),
  granted_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, role_id)
);

-- Query: list_users_with_role; and the foreign key.
CREATE INDEX user_roles_role_idx ON user_roles (role_id);

-- viewer, and above it operator, and above that administrator.
WITH viewer AS (
  INSERT INTO roles (name) VALUES ('viewer') RETURNING id, depth
), operator AS (
  INSERT INTO roles (name, parent_role_id, parent_depth, depth)
  SELECT 'operator', id, depth, depth + 1 FROM viewer RETURNING id, depth
), administrator AS (
  INSERT INTO roles (name, parent_role_id, parent_depth, depth)
  SELECT 'administrator', id, depth, depth + 1 FROM operator RETURNING id
)
INSERT INTO role_permissions (role_id, permission)
SELECT id, unnest(ARRAY['systems:read', 'configurations:read']) FROM viewer
UNION ALL SELECT id, unnest(ARRAY['systems:write', 'configurations:write']) FROM operator
UNION ALL SELECT id, unnest(ARRAY['users:write', 'certificates:write']) FROM administrator;
