-- The queries of the frontend service, in an order in which they can be run on an
-- empty openvpn_frontend_db as the application's role. Above each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values

-- The person of an ID token, new or known. No row: disabled.
-- name: record_login
-- index: oidc_identities_subject_key
-- with: 'https://id.example.com/realms/staff', '248289761001', 'ada@example.com', 'Ada', '{staff,vpn-admins}'
-- rows: 1
INSERT INTO oidc_identities AS i (issuer, subject, email, display_name, groups) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (issuer, subject) DO UPDATE
SET email = excluded.email, display_name = excluded.display_name, groups = excluded.groups, last_login_at = now()
WHERE i.disabled_at IS NULL
RETURNING id;

-- name: record_login
-- with: 'https://id.example.com/realms/staff', '248289761001', 'ada.l@example.com', 'Ada L.', '{staff}'
-- rows: 1
INSERT INTO oidc_identities AS i (issuer, subject, email, display_name, groups) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (issuer, subject) DO UPDATE
SET email = excluded.email, display_name = excluded.display_name, groups = excluded.groups, last_login_at = now()
WHERE i.disabled_at IS NULL
RETURNING id;

-- name: import_identity
-- with: '1de00000-0000-4000-8000-000000000002', 'https://id.example.com/realms/staff', '248289761002', 'grace@example.com'
-- rows: 1
INSERT INTO oidc_identities (id, issuer, subject, email) VALUES ($1, $2, $3, $4);

-- name: find_identities_by_email
-- index: oidc_identities_email_idx
-- with: 'Grace@example.com'
-- rows: 1
SELECT id, issuer, subject, display_name FROM oidc_identities WHERE lower(email) = lower($1);

-- $2 stands for the random value of the cookie; the service sends its hash alone.
-- name: begin_session
-- with: '1de00000-0000-4000-8000-000000000002', 'cookie-1', '8 hours'
-- rows: 1
INSERT INTO user_sessions (identity_id, token_hash, expires_at)
VALUES ($1, sha256(convert_to($2::text, 'UTF8')), now() + $3::interval) RETURNING id, expires_at;

-- name: find_session
-- index: user_sessions_token_hash_key, oidc_identities_pkey
-- with: 'cookie-1'
-- rows: 1
SELECT s.id, s.data, i.id AS identity_id, i.display_name, i.groups
FROM user_sessions s JOIN oidc_identities i ON i.id = s.identity_id
WHERE s.token_hash = sha256(convert_to($1::text, 'UTF8')) AND s.expires_at > now() AND i.disabled_at IS NULL;

-- At most once a minute, or every request would be a write.
-- name: note_seen
-- index: user_sessions_token_hash_key
-- with: 'cookie-1'
-- rows: 0
UPDATE user_sessions SET last_seen_at = now()
WHERE token_hash = sha256(convert_to($1::text, 'UTF8')) AND last_seen_at < now() - interval '1 minute';

-- name: list_sessions
-- index: user_sessions_identity_idx
-- with: '1de00000-0000-4000-8000-000000000002'
-- rows: 1
SELECT id, created_at, last_seen_at, expires_at FROM user_sessions
WHERE identity_id = $1 AND expires_at > now() ORDER BY created_at;

-- name: create_psk
-- with: '25000000-0000-4000-8000-000000000001', 'vpn-server fra-1', 'server', 'psk-1', '1de00000-0000-4000-8000-000000000002'
-- rows: 1
INSERT INTO psks (id, description, psk_type, key_hash, created_by)
VALUES ($1, $2, $3, sha256(convert_to($4::text, 'UTF8')), $5);

-- name: use_psk
-- index: psks_key_hash_key
-- with: 'psk-1'
-- rows: 1
UPDATE psks SET last_used_at = now()
WHERE key_hash = sha256(convert_to($1::text, 'UTF8')) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING id, psk_type;

-- name: list_psks
-- index: psks_description_key
-- rows: 1
SELECT id, description, psk_type, created_at, last_used_at, expires_at FROM psks WHERE revoked_at IS NULL ORDER BY description;

-- name: issue_token_for_person
-- with: '1de00000-0000-4000-8000-000000000002', 'link-1', 'grace-laptop'
-- rows: 1
INSERT INTO download_tokens (identity_id, token_hash, profile) VALUES ($1, sha256(convert_to($2::text, 'UTF8')), $3)
RETURNING expires_at;

-- name: issue_token_for_machine
-- with: '25000000-0000-4000-8000-000000000001', 'link-2', 'fra-1'
-- rows: 1
INSERT INTO download_tokens (psk_id, token_hash, profile) VALUES ($1, sha256(convert_to($2::text, 'UTF8')), $3)
RETURNING expires_at;

-- One statement: of two requests with one link, one gets the profile.
-- name: consume_token
-- index: download_tokens_hash_key
-- with: 'link-1'
-- rows: 1
UPDATE download_tokens SET used_at = now()
WHERE token_hash = sha256(convert_to($1::text, 'UTF8')) AND used_at IS NULL AND expires_at >= now()
RETURNING identity_id, psk_id, profile;

-- name: consume_token
-- with: 'link-1'
-- rows: 0
UPDATE download_tokens SET used_at = now()
WHERE token_hash = sha256(convert_to($1::text, 'UTF8')) AND used_at IS NULL AND expires_at >= now()
RETURNING identity_id, psk_id, profile;

-- name: add_setting
-- with: 'downloads.lifetime_seconds', '300', '1de00000-0000-4000-8000-000000000002'
-- rows: 1
INSERT INTO service_configuration (key, value, updated_by) VALUES ($1, $2, $3) RETURNING revision;

-- name: read_setting
-- index: service_configuration_pkey
-- with: 'downloads.lifetime_seconds'
-- rows: 1
SELECT value, revision FROM service_configuration WHERE key = $1;

-- name: change_setting
-- index: service_configuration_pkey
-- with: 'downloads.lifetime_seconds', 1, '600', '1de00000-0000-4000-8000-000000000002'
-- rows: 1
UPDATE service_configuration SET value = $3, updated_by = $4 WHERE key = $1 AND revision = $2 RETURNING revision;

-- Somebody else had seen the first value, and changed it meanwhile.
-- name: change_setting
-- with: 'downloads.lifetime_seconds', 1, '900', '1de00000-0000-4000-8000-000000000002'
-- rows: 0
UPDATE service_configuration SET value = $3, updated_by = $4 WHERE key = $1 AND revision = $2 RETURNING revision;

-- name: delete_setting
-- index: service_configuration_pkey
-- with: 'downloads.lifetime_seconds'
-- rows: 1
DELETE FROM service_configuration WHERE key = $1;

-- name: add_setting
-- with: 'downloads.lifetime_seconds', '60', NULL
-- rows: 1
INSERT INTO service_configuration (key, value, updated_by) VALUES ($1, $2, $3) RETURNING revision;

-- name: read_history
-- index: service_configuration_history_pkey
-- with: 'downloads.lifetime_seconds'
-- rows: 4
SELECT revision, value, changed_by, changed_at FROM service_configuration_history WHERE key = $1 ORDER BY revision;

-- name: end_sessions
-- index: user_sessions_identity_idx
-- with: '1de00000-0000-4000-8000-000000000002'
-- rows: 1
DELETE FROM user_sessions WHERE identity_id = $1;

-- name: purge_expired_sessions
-- index: user_sessions_expiry_idx
-- rows: 0
DELETE FROM user_sessions WHERE expires_at < now();

-- name: purge_expired_tokens
-- index: download_tokens_expiry_idx
-- rows: 0
DELETE FROM download_tokens WHERE expires_at < now() - interval '30 days';

-- name: revoke_psk
-- index: psks_pkey
-- with: '25000000-0000-4000-8000-000000000001'
-- rows: 1
UPDATE psks SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL;
