-- User preferences: one row per person, from the first moment on. What the
-- service acts on has a column and a check; what only a client remembers (key
-- bindings, panel sizes) lies in client_settings.

CREATE TABLE user_preferences (
  user_id             uuid        PRIMARY KEY REFERENCES user_profiles (user_id) ON DELETE CASCADE,
  locale              text        NOT NULL DEFAULT 'en'
                      CONSTRAINT user_preferences_locale_check CHECK (locale ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
  time_zone           text        NOT NULL DEFAULT 'UTC'
                      CONSTRAINT user_preferences_time_zone_check CHECK (time_zone ~ '^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$'),
  theme               text        NOT NULL DEFAULT 'system'
                      CONSTRAINT user_preferences_theme_check CHECK (theme IN ('system', 'light', 'dark')),
  profile_visible_to  text        NOT NULL DEFAULT 'everyone'
                      CONSTRAINT user_preferences_profile_visible_to_check CHECK (profile_visible_to IN ('everyone', 'friends', 'nobody')),
  requests_from       text        NOT NULL DEFAULT 'everyone'
                      CONSTRAINT user_preferences_requests_from_check CHECK (requests_from IN ('everyone', 'nobody')),
  show_online_status  boolean     NOT NULL DEFAULT true,
  client_settings     jsonb       NOT NULL DEFAULT '{}'
                      CONSTRAINT user_preferences_client_settings_check
                      CHECK (jsonb_typeof(client_settings) = 'object' AND octet_length(client_settings::text) <= 16384),
  updated_at          timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE user_preferences IS 'What a person has chosen. Every profile has a row, made by a trigger, so reading never needs a default.';
-- Queries: get_preferences, update_preferences use the primary key.

CREATE TRIGGER user_preferences_touch BEFORE UPDATE ON user_preferences
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE FUNCTION create_default_preferences() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO user_preferences (user_id) VALUES (NEW.user_id);
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION create_default_preferences() IS 'Trigger: gives a new profile its row of preferences.';

CREATE TRIGGER user_profiles_preferences AFTER INSERT ON user_profiles
FOR EACH ROW EXECUTE FUNCTION create_default_preferences();

-- The profiles that exist already.
INSERT INTO user_preferences (user_id) SELECT user_id FROM user_profiles;
