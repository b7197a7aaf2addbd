-- People search by display name as well as by handle.

-- Query: search_names. COLLATE "C" lets the index find by prefix; the second
-- column makes the order total, for paging.
CREATE INDEX user_profiles_name_idx ON user_profiles ((lower(display_name) COLLATE "C"), user_id);
