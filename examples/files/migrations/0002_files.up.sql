-- Files: their metadata. The contents are where file_path says, not in the database.

CREATE TABLE files (
  -- Text, since the storage gives the id; a random UUID where it gives none.
  id         text        PRIMARY KEY DEFAULT gen_random_uuid()::text
             CONSTRAINT files_id_check CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
  file_name  text        NOT NULL CONSTRAINT files_file_name_check
             CHECK (char_length(file_name) BETWEEN 1 AND 255 AND file_name !~ '[/[:cntrl:]]'),
  -- Unique: two files at one path would be one content, and deleting the one would take the other's.
  file_path  text        NOT NULL CONSTRAINT files_file_path_key UNIQUE
             CONSTRAINT files_file_path_check
             CHECK (char_length(file_path) <= 1024 AND file_path ~ '^(/[^/[:cntrl:]]+)+$' AND file_path !~ '/\.\.?(/|$)'),
  -- A user with files cannot be deleted: nobody would know of their contents any more.
  owner_id   bigint      NOT NULL REFERENCES users (id),
  is_shared  boolean     NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN files.is_shared IS 'Whether somebody else has a permission on it. The service sets it with the permission (share_file, unshare_file), so that a list needs no second table.';

-- Query: list_my_files; and the foreign key.
CREATE INDEX files_owner_idx ON files (owner_id, created_at DESC, id);

CREATE TRIGGER files_touch BEFORE UPDATE ON files
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
