-- User profiles. The user id comes from the auth service; its accounts live in
-- another database, so there is nothing here to refer to.

CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION touch_updated_at() IS 'Trigger: sets updated_at on every update.';

CREATE TABLE user_profiles (
  user_id      uuid        PRIMARY KEY,
  -- COLLATE "C": the unique index then also finds by prefix.
  handle       text        COLLATE "C" NOT NULL
               CONSTRAINT user_profiles_handle_check CHECK (handle ~ '^[a-z0-9_]{3,32}$'),
  display_name text        NOT NULL
               CONSTRAINT user_profiles_display_name_check
               CHECK (char_length(display_name) BETWEEN 1 AND 64
                      AND display_name = btrim(display_name) AND display_name !~ '[[:cntrl:]]'),
  bio          text        NOT NULL DEFAULT ''
               CONSTRAINT user_profiles_bio_check CHECK (char_length(bio) <= 500),
  avatar_path  text
               CONSTRAINT user_profiles_avatar_is_a_path
               CHECK (char_length(avatar_path) <= 255 AND avatar_path ~
                 '^([A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*\.(avif|gif|jpg|jpeg|png|webp)$'),
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  -- Queries: find_profile_by_handle, search_handles.
  CONSTRAINT user_profiles_handle_key UNIQUE (handle)
);

COMMENT ON TABLE user_profiles IS 'The public side of a person: handle, name, avatar. One row per user id of the auth service.';
COMMENT ON COLUMN user_profiles.user_id IS 'The id that the auth service gave; no foreign key, since accounts are in another database.';
COMMENT ON COLUMN user_profiles.handle IS 'The unique @name: lower case, so that two handles never differ by case alone.';
COMMENT ON COLUMN user_profiles.avatar_path IS 'Where the image lies in the avatar store, relative to its root: never the image itself, a URL or a path that leaves the root.';

CREATE TRIGGER user_profiles_touch BEFORE UPDATE ON user_profiles
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
