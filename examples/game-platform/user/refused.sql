-- What user_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: handle_taken
-- refused: 23505 user_profiles_handle_key
INSERT INTO user_profiles (user_id, handle, display_name) VALUES (gen_random_uuid(), 'ada', 'Another Ada');

-- name: handle_in_upper_case
-- refused: 23514 user_profiles_handle_check
INSERT INTO user_profiles (user_id, handle, display_name) VALUES (gen_random_uuid(), 'Ada', 'Ada');

-- name: name_with_a_line_break
-- refused: 23514 user_profiles_display_name_check
UPDATE user_profiles SET display_name = E'Ada\nAdmin' WHERE handle = 'ada';

-- name: avatar_as_bytes
-- refused: 23514 user_profiles_avatar_is_a_path
UPDATE user_profiles SET avatar_path = 'data:image/png;base64,iVBORw0KGgo=' WHERE handle = 'ada';

-- name: avatar_as_url
-- refused: 23514 user_profiles_avatar_is_a_path
UPDATE user_profiles SET avatar_path = 'https://evil.example.org/track.png' WHERE handle = 'ada';

-- name: avatar_outside_the_store
-- refused: 23514 user_profiles_avatar_is_a_path
UPDATE user_profiles SET avatar_path = '../../etc/secret.png' WHERE handle = 'ada';

-- name: avatar_with_an_absolute_path
-- refused: 23514 user_profiles_avatar_is_a_path
UPDATE user_profiles SET avatar_path = '/srv/avatars/ada.png' WHERE handle = 'ada';

-- name: friend_of_oneself
-- refused: 23514 friend_relationships_pair_is_ordered
INSERT INTO friend_relationships (user_low, user_high, status, requester_id, requested_at)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000001', 'pending',
        '6f1c0c9e-0000-4000-8000-000000000001', now());

-- name: pair_the_wrong_way_round
-- refused: 23514 friend_relationships_pair_is_ordered
INSERT INTO friend_relationships (user_low, user_high, status, requester_id, requested_at)
VALUES ('6f1c0c9e-0000-4000-8000-000000000002', '6f1c0c9e-0000-4000-8000-000000000001', 'pending',
        '6f1c0c9e-0000-4000-8000-000000000001', now());

-- name: request_by_a_third_person
-- refused: 23514 friend_relationships_requester_is_in_pair
INSERT INTO friend_relationships (user_low, user_high, status, requester_id, requested_at)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 'pending',
        '6f1c0c9e-0000-4000-8000-000000000003', now());

-- name: friend_who_is_also_blocked
-- refused: 23514 friend_relationships_blocked_check
INSERT INTO friend_relationships (user_low, user_high, status, requester_id, requested_at, accepted_at, blocked_by_low, blocked_at)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002', 'accepted',
        '6f1c0c9e-0000-4000-8000-000000000001', now(), now(), true, now());

-- name: friend_without_a_profile
-- refused: 23503 friend_relationships_user_high_fkey
INSERT INTO friend_relationships (user_low, user_high, status, requester_id, requested_at)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000009', 'pending',
        '6f1c0c9e-0000-4000-8000-000000000001', now());

-- name: unknown_theme
-- refused: 23514 user_preferences_theme_check
UPDATE user_preferences SET theme = 'neon' WHERE user_id = '6f1c0c9e-0000-4000-8000-000000000001';

-- name: client_settings_as_a_list
-- refused: 23514 user_preferences_client_settings_check
UPDATE user_preferences SET client_settings = '[1, 2]' WHERE user_id = '6f1c0c9e-0000-4000-8000-000000000001';

-- name: client_settings_as_a_file_store
-- refused: 23514 user_preferences_client_settings_check
UPDATE user_preferences SET client_settings = jsonb_build_object('file', repeat('x', 20000))
WHERE user_id = '6f1c0c9e-0000-4000-8000-000000000001';

-- name: the_application_changes_the_schema
-- refused: 42501
DROP TABLE user_preferences;
