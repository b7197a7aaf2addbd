-- What openvpn_frontend_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: one_person_twice
-- refused: 23505 oidc_identities_subject_key
INSERT INTO oidc_identities (issuer, subject) VALUES ('https://id.example.com/realms/staff', '248289761002');

-- name: provider_without_tls
-- refused: 23514 oidc_identities_issuer_check
INSERT INTO oidc_identities (issuer, subject) VALUES ('http://id.example.com', '1');

-- name: session_of_nobody
-- refused: 23503 user_sessions_identity_id_fkey
INSERT INTO user_sessions (identity_id, token_hash, expires_at)
VALUES ('1de00000-0000-4000-8000-000000000009', sha256('x'), now() + interval '1 hour');

-- name: cookie_in_the_clear
-- refused: 23514 user_sessions_token_hash_is_sha256
INSERT INTO user_sessions (identity_id, token_hash, expires_at)
VALUES ('1de00000-0000-4000-8000-000000000002', 'cookie-1', now() + interval '1 hour');

-- name: session_for_ever
-- refused: 23514 user_sessions_expiry_check
INSERT INTO user_sessions (identity_id, token_hash, expires_at)
VALUES ('1de00000-0000-4000-8000-000000000002', sha256('x'), 'infinity');

-- name: key_in_the_clear
-- refused: 23514 psks_key_hash_is_sha256
INSERT INTO psks (description, psk_type, key_hash) VALUES ('x', 'server', 'psk-1');

-- name: one_key_twice
-- refused: 23505 psks_key_hash_key
INSERT INTO psks (description, psk_type, key_hash) SELECT 'x', psk_type, key_hash FROM psks;

-- name: unknown_kind_of_key
-- refused: 23514 psks_type_check
INSERT INTO psks (description, psk_type, key_hash) VALUES ('x', 'toaster', sha256('x'));

-- name: revoked_key_works_again
-- refused: 23514 psks_revoked
UPDATE psks SET revoked_at = NULL WHERE id = '25000000-0000-4000-8000-000000000001';

-- name: key_replaced_under_its_name
-- refused: 23514 psks_revoked
UPDATE psks SET key_hash = sha256('mine') WHERE id = '25000000-0000-4000-8000-000000000001';

-- name: token_for_nobody
-- refused: 23514 download_tokens_for_one
INSERT INTO download_tokens (token_hash, profile) VALUES (sha256('x'), 'x');

-- name: token_for_a_person_and_a_machine
-- refused: 23514 download_tokens_for_one
INSERT INTO download_tokens (token_hash, profile, identity_id, psk_id)
VALUES (sha256('x'), 'x', '1de00000-0000-4000-8000-000000000002', '25000000-0000-4000-8000-000000000001');

-- name: token_for_a_machine_that_does_not_exist
-- refused: 23503 download_tokens_psk_id_fkey
INSERT INTO download_tokens (token_hash, profile, psk_id) VALUES (sha256('x'), 'x', '25000000-0000-4000-8000-000000000009');

-- name: token_for_a_year
-- refused: 23514 download_tokens_expiry_check
UPDATE download_tokens SET expires_at = now() + interval '1 year' WHERE used_at IS NULL;

-- name: token_used_again
-- refused: 23514 download_tokens_used_once
UPDATE download_tokens SET used_at = NULL WHERE used_at IS NOT NULL;

-- name: profile_that_is_a_path
-- refused: 23514 download_tokens_profile_check
UPDATE download_tokens SET profile = '../../etc/shadow' WHERE used_at IS NULL;

-- name: setting_twice
-- refused: 23505 service_configuration_pkey
INSERT INTO service_configuration (key, value) VALUES ('downloads.lifetime_seconds', '1');

-- name: setting_renamed
-- refused: 23514 service_configuration_key_stays
UPDATE service_configuration SET key = 'downloads.other';

-- name: setting_without_a_name
-- refused: 23514 service_configuration_key_check
INSERT INTO service_configuration (key, value) VALUES ('', '1');

-- name: history_rewritten
-- refused: 42501
UPDATE service_configuration_history SET changed_by = NULL;

-- name: history_deleted
-- refused: 42501
DELETE FROM service_configuration_history;

-- name: the_application_changes_the_schema
-- refused: 42501
ALTER TABLE service_configuration DISABLE TRIGGER ALL;
