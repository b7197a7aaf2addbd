DROP INDEX user_profiles_name_idx;
