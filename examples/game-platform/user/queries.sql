-- The queries of the user service, in an order in which they can be run on an
-- empty user_db as the application's role. Above each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values

-- name: create_profile
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'ada', 'Ada'
-- rows: 1
INSERT INTO user_profiles (user_id, handle, display_name) VALUES ($1, $2, $3) RETURNING created_at;

-- name: create_profile
-- with: '6f1c0c9e-0000-4000-8000-000000000002', 'grace', 'Grace H.'
-- rows: 1
INSERT INTO user_profiles (user_id, handle, display_name) VALUES ($1, $2, $3) RETURNING created_at;

-- name: set_avatar
-- index: user_profiles_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'avatars/6f/6f1c0c9e-256.webp'
-- rows: 1
UPDATE user_profiles SET avatar_path = $2 WHERE user_id = $1;

-- name: get_profiles
-- index: user_profiles_pkey
-- with: '{6f1c0c9e-0000-4000-8000-000000000001,6f1c0c9e-0000-4000-8000-000000000002}'
-- rows: 2
SELECT user_id, handle, display_name, bio, avatar_path FROM user_profiles WHERE user_id = ANY ($1::uuid[]);

-- name: find_profile_by_handle
-- index: user_profiles_handle_key
-- with: 'ada'
-- rows: 1
SELECT user_id, handle, display_name, bio, avatar_path FROM user_profiles WHERE handle = $1;

-- A prefix as a range: unlike LIKE $1, a prepared statement uses the index too.
-- name: search_handles
-- index: user_profiles_handle_key
-- with: 'gra'
-- rows: 1
SELECT user_id, handle, display_name, avatar_path FROM user_profiles
WHERE handle >= $1 AND handle < $1 || '~'
ORDER BY handle LIMIT 20;

-- name: search_names
-- index: user_profiles_name_idx
-- with: 'grace'
-- rows: 1
SELECT user_id, handle, display_name, avatar_path FROM user_profiles
WHERE lower(display_name) COLLATE "C" >= lower($1) AND lower(display_name) COLLATE "C" < lower($1) || U&'\+10FFFF'
ORDER BY lower(display_name) COLLATE "C", user_id LIMIT 20;

-- $1 asks $2. If $2 has asked $1 already, this accepts. No row: they are
-- friends already, the same request waits, or one of them blocks the other.
-- name: request_friendship
-- index: friend_relationships_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000002', '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
INSERT INTO friend_relationships AS r (user_low, user_high, status, requester_id, requested_at)
VALUES (least($1::uuid, $2::uuid), greatest($1::uuid, $2::uuid), 'pending', $1::uuid, now())
ON CONFLICT (user_low, user_high) DO UPDATE SET status = 'accepted', accepted_at = now()
WHERE r.status = 'pending' AND r.requester_id <> excluded.requester_id
RETURNING status;

-- name: list_incoming_requests
-- index: friend_relationships_incoming_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT r.requester_id, p.handle, p.display_name, p.avatar_path, r.requested_at
FROM friend_relationships r JOIN user_profiles p ON p.user_id = r.requester_id
WHERE r.addressee_id = $1 AND r.status = 'pending'
ORDER BY r.requested_at DESC LIMIT 50;

-- name: list_outgoing_requests
-- index: friend_relationships_outgoing_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
SELECT r.addressee_id, p.handle, p.display_name, p.avatar_path, r.requested_at
FROM friend_relationships r JOIN user_profiles p ON p.user_id = r.addressee_id
WHERE r.requester_id = $1 AND r.status = 'pending'
ORDER BY r.requested_at DESC LIMIT 50;

-- $1 accepts what $2 asked.
-- name: accept_friendship
-- index: friend_relationships_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
UPDATE friend_relationships SET status = 'accepted', accepted_at = now()
WHERE user_low = least($1::uuid, $2::uuid) AND user_high = greatest($1::uuid, $2::uuid)
  AND status = 'pending' AND requester_id = $2::uuid;

-- name: find_relationship
-- index: friend_relationships_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
SELECT status, requester_id, accepted_at
FROM friend_relationships
WHERE user_low = least($1::uuid, $2::uuid) AND user_high = greatest($1::uuid, $2::uuid);

-- name: list_friends
-- index: friend_relationships_pkey, friend_relationships_high_idx, user_profiles_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT f.friend_id, p.handle, p.display_name, p.avatar_path, f.since
FROM friends f JOIN user_profiles p ON p.user_id = f.friend_id
WHERE f.user_id = $1
ORDER BY p.display_name;

-- $1 blocks $2: whatever was between them ends.
-- name: block_user
-- index: friend_relationships_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
INSERT INTO friend_relationships AS r (user_low, user_high, status, blocked_by_low, blocked_by_high, blocked_at)
VALUES (least($1::uuid, $2::uuid), greatest($1::uuid, $2::uuid), 'blocked',
        $1::uuid < $2::uuid, $1::uuid > $2::uuid, now())
ON CONFLICT (user_low, user_high) DO UPDATE
SET status = 'blocked', requester_id = NULL, requested_at = NULL, accepted_at = NULL,
    blocked_by_low = r.blocked_by_low OR excluded.blocked_by_low,
    blocked_by_high = r.blocked_by_high OR excluded.blocked_by_high,
    blocked_at = coalesce(r.blocked_at, excluded.blocked_at);

-- The blocked one asks again: no row, nothing happens.
-- name: request_friendship
-- with: '6f1c0c9e-0000-4000-8000-000000000002', '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 0
INSERT INTO friend_relationships AS r (user_low, user_high, status, requester_id, requested_at)
VALUES (least($1::uuid, $2::uuid), greatest($1::uuid, $2::uuid), 'pending', $1::uuid, now())
ON CONFLICT (user_low, user_high) DO UPDATE SET status = 'accepted', accepted_at = now()
WHERE r.status = 'pending' AND r.requester_id <> excluded.requester_id
RETURNING status;

-- $1 unblocks $2: two statements in one transaction. While the other one still
-- blocks, the row stays.
-- name: unblock_user_where_both_block
-- index: friend_relationships_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 0
UPDATE friend_relationships
SET blocked_by_low = $1::uuid > $2::uuid, blocked_by_high = $1::uuid < $2::uuid
WHERE user_low = least($1::uuid, $2::uuid) AND user_high = greatest($1::uuid, $2::uuid)
  AND blocked_by_low AND blocked_by_high;

-- name: unblock_user
-- index: friend_relationships_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 1
DELETE FROM friend_relationships
WHERE user_low = least($1::uuid, $2::uuid) AND user_high = greatest($1::uuid, $2::uuid)
  AND blocked_by_low = ($1::uuid < $2::uuid) AND blocked_by_high = ($1::uuid > $2::uuid);

-- Ends a friendship, takes a request back or declines it; never undoes a block.
-- name: end_relationship
-- index: friend_relationships_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', '6f1c0c9e-0000-4000-8000-000000000002'
-- rows: 0
DELETE FROM friend_relationships
WHERE user_low = least($1::uuid, $2::uuid) AND user_high = greatest($1::uuid, $2::uuid)
  AND status IN ('pending', 'accepted');

-- name: get_preferences
-- index: user_preferences_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT locale, time_zone, theme, profile_visible_to, requests_from, show_online_status, client_settings
FROM user_preferences WHERE user_id = $1;

-- name: update_preferences
-- index: user_preferences_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'fr-CH', 'Europe/Zurich', 'dark', '{"paddle": "left"}'
-- rows: 1
UPDATE user_preferences
SET locale = $2, time_zone = $3, theme = $4, client_settings = client_settings || $5::jsonb
WHERE user_id = $1;
