-- The queries of the auth service, in an order in which they can be run on an
-- empty auth_db as the application's role. Above each statement:
--   name:  what the service calls it; the comments on the indexes use this name
--   index: what the statement is meant to find its rows by
--   with:  example values for $1, $2, …
--   rows:  how many rows it returns or changes with these values

-- name: create_account
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'Ada@example.org'
-- rows: 1
INSERT INTO accounts (id, email) VALUES ($1, $2) RETURNING id, created_at;

-- name: set_password
-- index: password_credentials_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001', '$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b5dWRWJTmaaJObGRdescudvJCs'
-- rows: 1
INSERT INTO password_credentials (user_id, password_hash) VALUES ($1, $2)
ON CONFLICT (user_id) DO UPDATE
SET password_hash = excluded.password_hash, changed_at = now(), failed_attempts = 0, locked_until = NULL;

-- name: find_account_for_login
-- index: accounts_email_key, password_credentials_pkey, two_factor_secrets_confirmed_key
-- with: 'ada@EXAMPLE.org'
-- rows: 1
SELECT a.id, a.status, a.email_verified_at, p.password_hash, p.locked_until,
       EXISTS (SELECT FROM two_factor_secrets t
               WHERE t.user_id = a.id AND t.confirmed_at IS NOT NULL) AS needs_second_factor
FROM accounts a
LEFT JOIN password_credentials p ON p.user_id = a.id
WHERE lower(a.email) = lower($1);

-- name: note_failed_login
-- index: password_credentials_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
UPDATE password_credentials
SET failed_attempts = failed_attempts + 1,
    locked_until = CASE WHEN failed_attempts + 1 >= 5
                        THEN now() + least(interval '1 second' * power(2, failed_attempts + 1), interval '1 hour')
                        ELSE locked_until END
WHERE user_id = $1
RETURNING failed_attempts, locked_until;

-- name: note_login
-- index: password_credentials_pkey
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
UPDATE password_credentials SET failed_attempts = 0, locked_until = NULL WHERE user_id = $1;

-- name: open_login
-- with: '6f1c0c9e-0000-4000-8000-0000000000f1', '6f1c0c9e-0000-4000-8000-000000000001', 'Firefox on Linux', '192.0.2.7', '30 days'
-- rows: 1
INSERT INTO token_families (id, user_id, user_agent, ip_address, expires_at)
VALUES ($1, $2, $3, $4::inet, now() + $5::interval)
RETURNING id, expires_at;

-- name: issue_login_token
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'refresh', sha256('refresh-1'), '6f1c0c9e-0000-4000-8000-0000000000f1', NULL, '7 days'
-- rows: 1
INSERT INTO auth_tokens (user_id, kind, token_hash, family_id, parent_id, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + $6::interval)
RETURNING id, expires_at;

-- name: find_token
-- index: auth_tokens_hash_key, token_families_pkey, accounts_pkey
-- with: sha256('refresh-1')
-- rows: 1
SELECT t.id, t.user_id, t.kind, t.family_id, t.consumed_at,
       t.revoked_at IS NULL AND t.consumed_at IS NULL AND t.expires_at > now()
         AND a.status = 'active'
         AND (t.family_id IS NULL OR (f.revoked_at IS NULL AND f.expires_at > now())) AS live
FROM auth_tokens t
JOIN accounts a ON a.id = t.user_id
LEFT JOIN token_families f ON f.id = t.family_id
WHERE t.token_hash = $1;

-- Rotation, in one transaction: this, then issue_login_token twice with the
-- returned id as parent. No row returned, and find_token says it was consumed:
-- the token was stolen, so revoke_login.
-- name: consume_refresh_token
-- index: auth_tokens_hash_key
-- with: sha256('refresh-1')
-- rows: 1
UPDATE auth_tokens t
SET consumed_at = now()
FROM token_families f
WHERE t.token_hash = $1 AND t.kind = 'refresh'
  AND t.consumed_at IS NULL AND t.revoked_at IS NULL AND t.expires_at > now()
  AND f.id = t.family_id AND f.revoked_at IS NULL AND f.expires_at > now()
RETURNING t.id, t.user_id, t.family_id;

-- name: consume_refresh_token
-- with: sha256('refresh-1')
-- rows: 0
UPDATE auth_tokens t
SET consumed_at = now()
FROM token_families f
WHERE t.token_hash = $1 AND t.kind = 'refresh'
  AND t.consumed_at IS NULL AND t.revoked_at IS NULL AND t.expires_at > now()
  AND f.id = t.family_id AND f.revoked_at IS NULL AND f.expires_at > now()
RETURNING t.id, t.user_id, t.family_id;

-- name: note_login_use
-- index: token_families_pkey
-- with: '6f1c0c9e-0000-4000-8000-0000000000f1', '192.0.2.8'
-- rows: 1
UPDATE token_families SET last_used_at = now(), ip_address = $2::inet WHERE id = $1;

-- name: list_active_logins
-- index: token_families_user_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT id, user_agent, ip_address, created_at, last_used_at
FROM token_families
WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()
ORDER BY last_used_at DESC;

-- name: revoke_login
-- index: token_families_user_key
-- with: '6f1c0c9e-0000-4000-8000-0000000000f1', '6f1c0c9e-0000-4000-8000-000000000001', 'logout'
-- rows: 1
UPDATE token_families SET revoked_at = now(), revoke_reason = $3
WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL;

-- name: revoke_all_logins
-- index: token_families_user_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'password_changed'
-- rows: 0
UPDATE token_families SET revoked_at = now(), revoke_reason = $2
WHERE user_id = $1 AND revoked_at IS NULL;

-- name: issue_password_reset
-- index: auth_tokens_live_link_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001', sha256('reset-1'), '1 hour'
-- rows: 1
INSERT INTO auth_tokens (user_id, kind, token_hash, expires_at)
VALUES ($1, 'password_reset', $2, now() + $3::interval)
ON CONFLICT (user_id, kind) WHERE kind IN ('email_verification', 'password_reset') AND consumed_at IS NULL AND revoked_at IS NULL
DO UPDATE SET token_hash = excluded.token_hash, issued_at = now(), expires_at = excluded.expires_at;

-- name: consume_link
-- index: auth_tokens_hash_key
-- with: sha256('reset-1'), 'password_reset'
-- rows: 1
UPDATE auth_tokens SET consumed_at = now()
WHERE token_hash = $1 AND kind = $2 AND consumed_at IS NULL AND revoked_at IS NULL AND expires_at > now()
RETURNING user_id;

-- name: enrol_two_factor
-- index: two_factor_secrets_pending_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'transit/auth-totp:3', '\x000102030405060708090a0b', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223'
-- rows: 1
INSERT INTO two_factor_secrets (user_id, key_id, nonce, secret_ciphertext) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id) WHERE confirmed_at IS NULL
DO UPDATE SET key_id = excluded.key_id, nonce = excluded.nonce,
              secret_ciphertext = excluded.secret_ciphertext, created_at = now();

-- name: confirm_two_factor
-- index: two_factor_secrets_pending_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 58000000
-- rows: 1
UPDATE two_factor_secrets SET confirmed_at = now(), last_accepted_step = $2
WHERE user_id = $1 AND confirmed_at IS NULL;

-- name: find_two_factor_secret
-- index: two_factor_secrets_confirmed_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT id, cipher, key_id, nonce, secret_ciphertext
FROM two_factor_secrets
WHERE user_id = $1 AND confirmed_at IS NOT NULL;

-- After the service has checked the code. No row: the code was used before.
-- name: accept_two_factor_code
-- index: two_factor_secrets_confirmed_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 58000001
-- rows: 1
UPDATE two_factor_secrets SET last_accepted_step = $2
WHERE user_id = $1 AND confirmed_at IS NOT NULL AND (last_accepted_step IS NULL OR last_accepted_step < $2)
RETURNING id;

-- name: accept_two_factor_code
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 58000001
-- rows: 0
UPDATE two_factor_secrets SET last_accepted_step = $2
WHERE user_id = $1 AND confirmed_at IS NOT NULL AND (last_accepted_step IS NULL OR last_accepted_step < $2)
RETURNING id;

-- name: secrets_under_key
-- index: two_factor_secrets_nonce_once
-- with: 'transit/auth-totp:3'
-- rows: 1
SELECT id, cipher, nonce, secret_ciphertext FROM two_factor_secrets WHERE key_id = $1 LIMIT 500;

-- In one transaction with add_backup_code for each new code.
-- name: replace_backup_codes
-- index: two_factor_backup_codes_user_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 0
DELETE FROM two_factor_backup_codes WHERE user_id = $1;

-- name: add_backup_code
-- with: '6f1c0c9e-0000-4000-8000-0000000000b1', '6f1c0c9e-0000-4000-8000-000000000001', '$argon2id$v=19$m=19456,t=2,p=1$YmFja3Vwc2FsdA$RdescudvJCsgt3ub+b5dWRWJTmaaJObG'
-- rows: 1
INSERT INTO two_factor_backup_codes (id, user_id, code_hash) VALUES ($1, $2, $3);

-- name: list_unused_backup_codes
-- index: two_factor_backup_codes_unused_idx
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT id, code_hash FROM two_factor_backup_codes WHERE user_id = $1 AND used_at IS NULL;

-- name: use_backup_code
-- index: two_factor_backup_codes_pkey
-- with: '6f1c0c9e-0000-4000-8000-0000000000b1'
-- rows: 1
UPDATE two_factor_backup_codes SET used_at = now() WHERE id = $1 AND used_at IS NULL RETURNING user_id;

-- name: begin_oauth
-- with: sha256('state-1'), sha256('cookie-1'), 'google', 'dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk', 'https://play.example.org/oauth/callback', NULL
-- rows: 1
INSERT INTO oauth_states (state_hash, browser_hash, provider, code_verifier, redirect_uri, link_to_user_id)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: consume_oauth_state
-- index: oauth_states_pkey
-- with: sha256('state-1'), sha256('cookie-1'), 'google'
-- rows: 1
DELETE FROM oauth_states
WHERE state_hash = $1 AND browser_hash = $2 AND provider = $3 AND expires_at > now()
RETURNING code_verifier, redirect_uri, link_to_user_id;

-- name: consume_oauth_state
-- with: sha256('state-1'), sha256('cookie-1'), 'google'
-- rows: 0
DELETE FROM oauth_states
WHERE state_hash = $1 AND browser_hash = $2 AND provider = $3 AND expires_at > now()
RETURNING code_verifier, redirect_uri, link_to_user_id;

-- name: link_oauth_identity
-- with: '6f1c0c9e-0000-4000-8000-000000000001', 'google', '108234511223344556677'
-- rows: 1
INSERT INTO oauth_identities (user_id, provider, subject) VALUES ($1, $2, $3);

-- name: find_account_by_oauth_identity
-- index: oauth_identities_subject_key, accounts_pkey
-- with: 'google', '108234511223344556677'
-- rows: 1
SELECT a.id, a.status
FROM oauth_identities i JOIN accounts a ON a.id = i.user_id
WHERE i.provider = $1 AND i.subject = $2;

-- name: list_oauth_identities
-- index: oauth_identities_user_provider_key
-- with: '6f1c0c9e-0000-4000-8000-000000000001'
-- rows: 1
SELECT provider, linked_at, last_login_at FROM oauth_identities WHERE user_id = $1;

-- name: purge_expired_tokens
-- index: auth_tokens_expiry_idx
-- with: '1 day'
-- rows: 0
DELETE FROM auth_tokens WHERE expires_at < now() - $1::interval;

-- name: purge_expired_logins
-- index: token_families_expiry_idx
-- with: '1 day'
-- rows: 0
DELETE FROM token_families WHERE expires_at < now() - $1::interval;

-- name: purge_expired_oauth_states
-- index: oauth_states_expiry_idx
-- rows: 0
DELETE FROM oauth_states WHERE expires_at < now();
