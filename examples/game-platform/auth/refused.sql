-- What auth_db refuses, whatever the service does. Run after queries.sql.
--   refused: the SQLSTATE, and the constraint where there is one

-- name: second_account_with_the_same_address
-- refused: 23505 accounts_email_key
INSERT INTO accounts (email) VALUES ('ADA@example.ORG');

-- name: address_without_a_domain
-- refused: 23514 accounts_email_check
INSERT INTO accounts (email) VALUES ('ada');

-- name: plain_password
-- refused: 23514 password_credentials_hash_is_phc
UPDATE password_credentials SET password_hash = 'correct horse battery staple';

-- name: unsalted_hash
-- refused: 23514 password_credentials_hash_is_phc
UPDATE password_credentials SET password_hash = encode(sha256('secret'), 'hex');

-- name: plain_token
-- refused: 23514 auth_tokens_hash_is_sha256
INSERT INTO auth_tokens (user_id, kind, token_hash, expires_at)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'password_reset', 'a-plain-token', now() + interval '1 hour');

-- name: token_that_never_lived
-- refused: 23514 auth_tokens_expiry_check
INSERT INTO auth_tokens (user_id, kind, token_hash, expires_at)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'password_reset', sha256('x'), now() - interval '1 hour');

-- name: refresh_token_outside_a_login
-- refused: 23514 auth_tokens_login_tokens_have_family
INSERT INTO auth_tokens (user_id, kind, token_hash, expires_at)
VALUES ('6f1c0c9e-0000-4000-8000-000000000001', 'refresh', sha256('x'), now() + interval '1 hour');

-- name: two_live_refresh_tokens_in_one_login
-- refused: 23505 auth_tokens_live_refresh_key
INSERT INTO auth_tokens (user_id, kind, token_hash, family_id, expires_at)
SELECT user_id, 'refresh', sha256(n::text::bytea), id, now() + interval '1 hour'
FROM token_families, generate_series(1, 2) n;

-- name: login_token_of_another_account
-- refused: 23503 auth_tokens_family_fkey
WITH other AS (INSERT INTO accounts (email) VALUES ('eve@example.org') RETURNING id)
INSERT INTO auth_tokens (user_id, kind, token_hash, family_id, expires_at)
SELECT other.id, 'access', sha256('x'), f.id, now() + interval '1 hour'
FROM other, token_families f WHERE f.id = '6f1c0c9e-0000-4000-8000-0000000000f1';

-- name: revoked_without_a_reason
-- refused: 23514 token_families_revoked_with_reason
UPDATE token_families SET revoke_reason = NULL;

-- name: second_confirmed_two_factor_secret
-- refused: 23505 two_factor_secrets_confirmed_key
INSERT INTO two_factor_secrets (user_id, key_id, nonce, secret_ciphertext, confirmed_at)
SELECT user_id, key_id, '\x0b0a09080706050403020100', secret_ciphertext, now()
FROM two_factor_secrets WHERE user_id = '6f1c0c9e-0000-4000-8000-000000000001';

-- name: nonce_used_twice
-- refused: 23505 two_factor_secrets_nonce_once
INSERT INTO two_factor_secrets (user_id, key_id, nonce, secret_ciphertext)
SELECT user_id, key_id, nonce, secret_ciphertext FROM two_factor_secrets;

-- name: nonce_of_the_wrong_length
-- refused: 23514 two_factor_secrets_nonce_check
UPDATE two_factor_secrets SET cipher = 'xchacha20-poly1305';

-- name: two_factor_secret_in_plain
-- refused: 23514 two_factor_secrets_ciphertext_check
UPDATE two_factor_secrets SET secret_ciphertext = 'JBSWY3DPEHPK3PXP';

-- name: plain_backup_code
-- refused: 23514 two_factor_backup_codes_hash_is_phc
INSERT INTO two_factor_backup_codes (user_id, code_hash) VALUES ('6f1c0c9e-0000-4000-8000-000000000001', '1234-5678');

-- name: short_pkce_verifier
-- refused: 23514 oauth_states_verifier_is_pkce
INSERT INTO oauth_states (state_hash, browser_hash, provider, code_verifier, redirect_uri)
VALUES (sha256('s'), sha256('c'), 'google', 'too-short', 'https://play.example.org/oauth/callback');

-- name: oauth_state_that_lives_for_a_day
-- refused: 23514 oauth_states_lifetime_check
INSERT INTO oauth_states (state_hash, browser_hash, provider, code_verifier, redirect_uri, expires_at)
VALUES (sha256('s'), sha256('c'), 'google', repeat('v', 43), 'https://play.example.org/oauth/callback', now() + interval '1 day');

-- name: redirect_over_plain_http
-- refused: 23514 oauth_states_redirect_check
INSERT INTO oauth_states (state_hash, browser_hash, provider, code_verifier, redirect_uri)
VALUES (sha256('s'), sha256('c'), 'google', repeat('v', 43), 'http://evil.example.org/');

-- name: identity_linked_twice
-- refused: 23505 oauth_identities_subject_key
WITH other AS (INSERT INTO accounts (email) VALUES ('eve@example.org') RETURNING id)
INSERT INTO oauth_identities (user_id, provider, subject)
SELECT other.id, i.provider, i.subject FROM other, oauth_identities i;

-- name: the_application_changes_the_schema
-- refused: 42501
DROP TABLE accounts;
