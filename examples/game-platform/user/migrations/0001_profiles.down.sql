DROP TABLE user_profiles;
DROP FUNCTION touch_updated_at();
