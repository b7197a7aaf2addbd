DROP TRIGGER user_profiles_preferences ON user_profiles;
DROP FUNCTION create_default_preferences();
DROP TABLE user_preferences;
