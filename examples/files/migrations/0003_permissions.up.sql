-- Permissions: who may do what with which file, and who said so.

-- The target of permissions_owner_fkey.
ALTER TABLE files ADD CONSTRAINT files_owner_key UNIQUE (id, owner_id);

CREATE TABLE permissions (
  id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id    bigint      NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  file_id    text        NOT NULL REFERENCES files (id) ON DELETE CASCADE,
  permission text        NOT NULL CONSTRAINT permissions_permission_check CHECK (permission IN ('read', 'write', 'delete')),
  is_owner   boolean     NOT NULL DEFAULT false,
  -- What was granted stays when who granted it goes.
  granted_by bigint      REFERENCES users (id) ON DELETE SET NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  -- files.owner_id says who owns a file, and is_owner says it again: this column
  -- and its foreign key keep the two from contradicting each other.
  owner_id   bigint      GENERATED ALWAYS AS (CASE WHEN is_owner THEN user_id END) STORED,
  CONSTRAINT permissions_owner_fkey FOREIGN KEY (file_id, owner_id) REFERENCES files (id, owner_id) ON DELETE CASCADE,
  -- Query: may_user. Granted twice is granted once.
  CONSTRAINT permissions_grant_key UNIQUE (user_id, file_id, permission),
  -- Only the owner has a permission from nobody else.
  CONSTRAINT permissions_granted_by_another CHECK (is_owner OR granted_by <> user_id)
);

COMMENT ON COLUMN permissions.granted_by IS 'Null for an owner''s own permissions, and when who granted it was deleted.';
COMMENT ON COLUMN permissions.owner_id IS 'user_id where is_owner. Derived; for the foreign key.';

-- Query: list_permissions_of_file; and the foreign keys.
CREATE INDEX permissions_file_idx ON permissions (file_id);
CREATE INDEX permissions_granted_by_idx ON permissions (granted_by) WHERE granted_by IS NOT NULL;
